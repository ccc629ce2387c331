"""Tests of the `kdedge explain` command."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from training_toys import Outcome

from kdedge.pipelines.model_export import export_model
from kdedge_runtime.devices import load_profile


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Model file with a map, and an image file; read-only."""
    folder = tmp_path_factory.mktemp("files")
    export_model("small:resnet8", pretrained=False, output=folder / "model.onnx", profile=load_profile("generic"))
    Image.new("RGB", (60, 40), "orange").save(folder / "picture.png")
    return str(folder / "model.onnx"), str(folder / "picture.png")


def test_map_of_the_file_or_of_a_method(
    command: Callable[..., Outcome], files: tuple[str, str], tmp_path: Path
) -> None:
    own = command("explain", *files, "-o", str(tmp_path / "own"))
    estimated = command("explain", *files, "--method", "shap", "--segments", "4", "-o", str(tmp_path / "estimated"))
    assert (own.code, estimated.code) == (0, 0), own.err + estimated.err
    assert own.out.startswith(str(tmp_path / "own" / "picture.png"))
    assert "16 evaluations, " in estimated.out
    assert "evaluations" not in own.out
    # The page describes the model's own map.
    assert list((tmp_path / "own").glob("*.html")) and not list((tmp_path / "estimated").glob("*.html"))


def test_explained_class_is_named_beside_the_top_class(
    command: Callable[..., Outcome], files: tuple[str, str], tmp_path: Path
) -> None:
    for name in ("tench", "goldfish"):
        line = command("explain", *files, "--class", name, "-o", str(tmp_path / "out")).out.splitlines()[0]
        is_top = f"  {name} " in line
        assert line.endswith(f"  map of {name}") != is_top


def test_limit_keeps_the_first_samples(command: Callable[..., Outcome], files: tuple[str, str], tmp_path: Path) -> None:
    model, picture = files
    done = command("explain", model, picture, picture, picture, "--limit", "2", "-o", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert command("explain", model, picture, "--limit", "0", "-o", str(tmp_path / "none")).code == 2


def test_exceeded_budget_is_reported(command: Callable[..., Outcome], files: tuple[str, str], tmp_path: Path) -> None:
    estimated = command("explain", *files, "--method", "lime", "--budget-ms", "0.01", "-o", str(tmp_path / "estimated"))
    assert "(over the budget of 0.01 ms" in estimated.out


def test_score_cam_on_an_exported_file(command: Callable[..., Outcome], files: tuple[str, str], tmp_path: Path) -> None:
    estimated = command("explain", *files, "--method", "scorecam", "-o", str(tmp_path / "estimated"))
    assert estimated.code == 0, estimated.err
    assert "64 evaluations, " in estimated.out, "one evaluation per channel"


def test_score_cam_finds_the_last_layer_without_metadata(
    command: Callable[..., Outcome], files: tuple[str, str], tmp_path: Path
) -> None:
    model = onnx.load(files[0])
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["features" if name == "target_activations" else name for name in names]
    onnx.save(model, tmp_path / "unnamed.onnx")
    pictures = []
    for path in (Path(files[0]), tmp_path / "unnamed.onnx"):
        out = tmp_path / path.stem
        done = command("explain", str(path), files[1], "--method", "scorecam", "-o", str(out))
        assert done.code == 0, done.err
        pictures.append(np.asarray(Image.open(out / "picture.png")))
    np.testing.assert_array_equal(*pictures)


def test_score_cam_rejects_a_layer_other_than_the_target(
    command: Callable[..., Outcome], files: tuple[str, str], tmp_path: Path
) -> None:
    earlier = str(tmp_path / "earlier.onnx")
    exported = command("export", "small:resnet8", "--no-pretrained", "--target-layer", "layer2", "-o", earlier)
    assert exported.code == 0, exported.err
    refused = command("explain", earlier, files[1], "--method", "scorecam")
    assert refused.code == 2
    assert "no tensor target_activations" in refused.err and "Use another --method" in refused.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "gradcam"), "method 'gradcam' does not exist"),
        (("--budget-ms", "100"), "--budget-ms 100 needs --method"),
        (("--segments", "9"), "--segments 9 needs --method"),
    ],
)
def test_invalid_options_are_single_sentence_errors(
    command: Callable[..., Outcome], files: tuple[str, str], tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    outcome = command("explain", *files, *options, "-o", str(tmp_path / "out"))
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_page_and_terminal_show_equal_int8_probabilities(
    command: Callable[..., Outcome], exported_run: Path, scenes: Path, tmp_path: Path
) -> None:
    """Attribution disables ONNX Runtime's integer kernels, so its logits are rounded differently."""
    for picture in sorted((scenes / "val").rglob("*.png"))[::6]:
        explained = command("explain", exported_run / "model.int8.onnx", picture, "-o", tmp_path / "out")
        assert explained.code == 0, explained.err
        share = re.search(r"(\d+\.\d)%", explained.out.splitlines()[0])
        assert share is not None
        page = (tmp_path / "out" / f"{picture.stem}.html").read_text(encoding="utf-8")
        assert f"{share[1]}%" in page

"""`kdedge export --from-onnx`, `kdedge inspect` and the page of `kdedge explain` on the command line."""

import json
import re
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn
from training_toys import Outcome
from typer.testing import CliRunner

from kdedge_export.scenes import render_scene
from kdedge_runtime import Model
from kdedge_runtime.util import timing

SIDE, CLASSES = 32, 3
Command = Callable[..., Outcome]


class Small(nn.Module):
    """Typical small user classifier."""

    def __init__(self, *, averages_the_largest: bool = False) -> None:
        super().__init__()
        self.averages_the_largest = averages_the_largest
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU()
        )
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.features(x)
        return self.fc(
            features.flatten(2).topk(4).values.mean(2) if self.averages_the_largest else features.mean((2, 3))
        )


def exported_by_torch(model: nn.Module, path: Path) -> Path:
    dynamic = {"input": {0: "batch"}, "output": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.randn(2, 3, SIDE, SIDE),)
        names = {"input_names": ["input"], "output_names": ["output"]}
        torch.onnx.export(model.eval(), example, path, dynamo=False, dynamic_axes=dynamic, **names)
    return path


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File written by PyTorch's exporter; read-only."""
    torch.manual_seed(0)
    return exported_by_torch(Small(), tmp_path_factory.mktemp("theirs") / "net.onnx")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "scene <1>.png"
    Image.fromarray(render_scene("bottle", np.random.default_rng(0), 96).image).save(path)
    return path


@pytest.fixture(scope="module")
def runnable(theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with map and preprocessing, as `kdedge run` accepts it."""
    from kdedge_export.onnx_import import PixelInput, add_saliency

    path = tmp_path_factory.mktemp("runnable") / "ours.onnx"
    pixels = PixelInput((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    add_saliency(theirs, path, pixels=pixels, labels=("bottle & cap", "cup", "fork"))
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, theirs: Path, scenes: Path) -> Path:
    """fp32 file with labels and an int8 file next to it; read-only."""
    from kdedge.cli.app import app

    folder = tmp_path_factory.mktemp("pair")
    labels = folder / "labels.txt"
    labels.write_text("\n".join(sorted(path.name for path in (scenes / "val").iterdir())))
    words = ["export", "--from-onnx", theirs, "-o", folder / "ours.onnx", "--mean", "0.5", "--std", "0.5"]
    words += ["--labels", labels, "--quantize", "--data", scenes]
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
    return folder / "ours.onnx"


class TestFromOnnx:
    def test_foreign_file_becomes_a_runnable_model(
        self, command: Command, tmp_path: Path, theirs: Path, photo: Path
    ) -> None:
        labels = tmp_path / "labels.txt"
        labels.write_text("bottle\ncup\nfork\n")
        ours = tmp_path / "ours.onnx"
        options = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--labels", labels)
        done = command("export", "--from-onnx", theirs, "-o", ours, *options)
        assert done.code == 0, done.err
        assert done.out == ""
        assert "[✓] original outputs are unchanged" in done.err
        assert "map: HiResCAM, matches finite differences" in done.err
        assert "8 × 8 map, GAP+Linear head" in done.err
        assert re.search(
            r"cost of the map: 1\.\d+ × the MACs and ([1-9]\d*\.\d+ × the|no measurable) latency", done.err
        )
        assert done.err.endswith(f"Next: kdedge run {ours} --source IMAGE\n")
        model = Model.load(ours)
        assert model.metadata.labels == ("bottle", "cup", "fork")
        lines = tmp_path / "lines.jsonl"
        run = command("run", ours, "--source", photo, "--jsonl", lines)
        assert run.code == 0, run.err
        assert json.loads(lines.read_text().splitlines()[-1])

    def test_missing_preprocessing_is_reported(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        done = command("export", "--from-onnx", theirs, "-o", tmp_path / "ours.onnx")
        assert done.code == 0
        assert "(bit-exact)" in done.err
        assert "preprocessing" in done.err and "--mean 0.5 --std 0.5" in done.err
        run = command("run", tmp_path / "ours.onnx", "--source", "a.png")
        assert run.code == 2 and "no kdedge metadata" in run.err

    def test_default_output_is_next_to_the_file(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        copy = tmp_path / "copy.onnx"
        copy.write_bytes(theirs.read_bytes())
        assert command("export", "--from-onnx", copy).code == 0
        assert (tmp_path / "copy.explained.onnx").is_file()

    def test_file_with_a_map_is_copied_with_a_message(self, command: Command, tmp_path: Path, runnable: Path) -> None:
        done = command("export", "--from-onnx", runnable, "-o", tmp_path / "again.onnx")
        assert done.code == 0
        assert "already has a saliency map" in done.err
        assert (tmp_path / "again.onnx").read_bytes() == runnable.read_bytes()

    def test_preprocessing_can_be_added_later(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
        assert command("export", "--from-onnx", theirs, "-o", first).code == 0
        done = command("export", "--from-onnx", first, "-o", second, "--mean", "0.5", "--std", "0.5")
        assert done.code == 0, done.err
        assert "map: HiResCAM, as in the original file" in done.err
        assert Model.load(second).has_map

    @pytest.mark.parametrize(
        ("front", "arguments", "message"),
        [
            pytest.param(front, arguments, message, id=f"{front}, {' '.join(arguments)}")
            for front in ("with a front", "without")
            for arguments, message in (
                (["--target-layer", "x"], "Omit --target-layer, --method and --head"),
                (["--method", "gradcam"], "Omit --target-layer, --method and --head"),
                (["--head", "output"], "Omit --target-layer, --method and --head"),
                (["--resize", "squash"], "Omit --resize"),
                (["--method", "reciprocam"], "Omit --target-layer, --method and --head"),
                (["--mean", "0.5", "--std", "0.5"], "Omit --mean and --std"),
                (["--labels", "THREE"], "Omit --labels"),
                (["--size", "64"], "Omit --size"),
                (["--labels", "THREE", "--size", "32"], "Omit --labels and --size"),
            )
            if front == "with a front" or "--mean" not in arguments  # preprocessing can be added later
        ],
    )
    def test_options_without_effect_are_rejected(
        self,
        command: Command,
        tmp_path: Path,
        runnable: Path,
        theirs: Path,
        front: str,
        arguments: list[str],
        message: str,
    ) -> None:
        finished, again = runnable, tmp_path / "again.onnx"
        (tmp_path / "three.txt").write_text("a\nb\nc\n")
        if front == "without":
            finished = tmp_path / "mapped.onnx"
            assert command("export", "--from-onnx", theirs, "-o", finished).code == 0
        typed = [str(tmp_path / "three.txt") if word == "THREE" else word for word in arguments]
        done = command("export", "--from-onnx", finished, "-o", again, *typed)
        assert done.code == 2 and message in done.err
        assert not again.exists()

    def test_target_layer_from_inspect_is_accepted(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        listed = command("inspect", theirs, "-o", tmp_path / "page.html").out.splitlines()
        relu = [line.split()[0] for line in listed if " Relu " in line][-1]
        done = command("export", "--from-onnx", theirs, "--target-layer", relu, "-o", tmp_path / "ours.onnx")
        assert done.code == 0, done.err
        (tensor,) = next(node.output for node in onnx.load(theirs).graph.node if node.name == relu)
        assert tensor != relu and f"head, target layer {tensor}" in done.err

    def test_reciprocam_prints_its_cost(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        done = command("export", "--from-onnx", theirs, "--method", "reciprocam", "-o", tmp_path / "ours.onnx")
        assert done.code == 0
        assert "map: ReciproCAM" in done.err and "once per map position" in done.err

    def test_explicit_method_has_no_fallback(self, command: Command, tmp_path: Path) -> None:
        path = exported_by_torch(Small(averages_the_largest=True), tmp_path / "largest.onnx")
        ours = tmp_path / "ours.onnx"
        refused = command("export", "--from-onnx", path, "--method", "gradcam", "-o", ours)
        assert refused.code == 2 and not ours.exists()
        assert "Grad-CAM needs the derivative of TopK" in refused.err
        assert "Omit --method to use ReciproCAM" in refused.err
        unnamed = command("export", "--from-onnx", path, "-o", ours)
        assert unnamed.code == 0, unnamed.err
        assert "map: ReciproCAM (TopK is not differentiable here)" in unnamed.err

    def test_missing_class_names_are_noted(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        done = command("export", "--from-onnx", theirs, "-o", tmp_path / "o.onnx", "--mean", "0", "--std", "1/255")
        assert "0 to 2. Add names with --labels FILE" in done.err
        assert Model.load(tmp_path / "o.onnx").metadata.input.std == (1 / 255,) * 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--mean", "0.5"], "both --mean and --std"),
            (["--bgr"], "both --mean and --std"),
            (["--mean", "0.5", "--std", "0"], "--std 0 is not a valid channel value"),
            (["--mean", "1,2", "--std", "1"], "--mean 1,2 is not a valid channel value"),
            (["--mean", "grey", "--std", "1/0"], "--mean grey is not"),
            (
                ["--mean", "123,116,103", "--std", "58"],
                "it is --mean 0.4824,0.4549,0.4039, and --std 58 becomes --std 0.2",
            ),
            (["--quantize"], "--data DIR"),
            (["--data", "pictures"], "Add --quantize, or remove --data"),
            (["--quantize", "--data", "pictures", "--keep-heatmaps", "1"], "--keep-heatmaps must be a correlation"),
            (["--weights", "w.pth"], "Remove --weights"),
            (["--method", "none"], "Remove one of the two options"),
            (["--target-layer", "nowhere"], "has no tensor 'nowhere'"),
            (["--labels", "nowhere.txt"], "nowhere.txt cannot be read"),
            (["--labels", "THREE"], "--labels needs a file that kdedge can run"),
            (["--resize", "squash"], "--resize needs a file that kdedge can run"),
            (["--crop-fraction", "1.5", "--mean", "0", "--std", "1"], "--crop-fraction 1.5 is out of range"),
            (["--crop-fraction", "0.9", "--resize", "squash"], "--crop-fraction needs --resize crop"),
            (["--head", "nowhere"], "has no classification head 'nowhere'. Its heads are: output"),
            (["--size", "64"], "accepts only images of 32 × 32 px"),
            (["-o", "model.pt"], "must end in .onnx"),
            (["resnet18"], "Remove SOURCE"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_invalid_arguments(
        self, command: Command, tmp_path: Path, theirs: Path, arguments: list[str], message: str
    ) -> None:
        three = tmp_path / "three.txt"
        three.write_text("a\nb\nc\n")
        done = command("export", *(three if word == "THREE" else word for word in arguments), "--from-onnx", theirs)
        assert done.code == 2
        error = done.err.splitlines()[-1]  # after the progress lines of a log
        assert error.startswith("error: ") and message in error
        assert not theirs.with_suffix(".explained.onnx").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "nothing to export"),
            (["net.onnx"], "kdedge export --from-onnx net.onnx"),
            (["resnet18", "--mean", "0.5"], "--mean needs --from-onnx"),
            (["resnet18", "--method", "reciprocam"], "needs --from-onnx"),
            (["--from-onnx", "nowhere.onnx"], "There is no model file nowhere.onnx"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_missing_arguments(self, command: Command, arguments: list[str], message: str) -> None:
        done = command("export", *arguments)
        assert done.code == 2
        assert message in done.err


class TestValidate:
    """Validation of a file of another framework, without a PyTorch model."""

    def test_int8_is_compared_with_fp32(self, command: Command, pair: Path, scenes: Path) -> None:
        done = command("validate", pair, "--data", scenes, "--out", pair.parent / "report")
        assert done.code in (0, 4), done.err  # few images leave bounds inconclusive
        report = json.loads((pair.parent / "report" / "report.json").read_text("utf-8"))
        assert set(report["models"]) == {"fp32", "int8"} and report["labeled"]
        assert report["comparisons"]["int8"]["reference"] == "fp32"
        assert report["comparisons"]["int8"]["agreement"] > 0.9
        assert report["comparisons"]["int8"]["maps"]["pearson_mean"] > 0.98
        outcomes = {check["key"]: check["outcome"] for check in report["checks"]}
        assert outcomes["fp32_agreement"] == outcomes["fp32_map_error"] == "not applicable"
        assert outcomes["int8_input"] == outcomes["int8_labels"] == outcomes["fp32_default_class"] == "passed"
        assert report["calibration"].keys() == {"fp32", "int8"} and report["robustness"]["rows"]
        network = sum(parameter.numel() for parameter in Small().parameters())
        assert (
            network <= report["footprints"]["fp32"]["parameters"] <= network + 10
        )  # mean and std of the preprocessing
        assert "There is no PyTorch model" in done.err and "[ ] fp32 top-1 agreement" in done.out
        assert (pair.parent / "report" / "report.html").is_file()

    def test_unlabeled_images(self, command: Command, pair: Path, scenes: Path, tmp_path: Path) -> None:
        for number, picture in enumerate(sorted((scenes / "val").rglob("*.png"))):
            (tmp_path / "flat").mkdir(exist_ok=True)
            (tmp_path / "flat" / f"{number}.png").write_bytes(picture.read_bytes())
        command("validate", pair, "--data", tmp_path / "flat", "--quick", "--out", tmp_path / "report")
        report = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
        assert not report["labeled"] and report["models"]["fp32"]["top1"] is None
        assert any(check["key"] == "int8_agreement" for check in report["checks"])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ((), "its images are unknown. Give them: --data DIR"),
            (("--data", "SCENES", "--weights", "WEIGHTS"), "not from a PyTorch model. Remove --weights"),
            (("--data", "SCENES", "--model", "net.py:make"), "not from a PyTorch model. Remove --model"),
        ],
        ids=["no data", "weights", "model"],
    )
    def test_invalid_arguments(
        self,
        command: Command,
        tmp_path: Path,
        runnable: Path,
        scenes: Path,
        options: tuple[str, ...],
        message: str,
    ) -> None:
        weights = tmp_path / "weights.safetensors"
        weights.write_bytes(b"")
        named = {"SCENES": scenes, "WEIGHTS": weights}
        done = command("validate", runnable, *(named.get(word, word) for word in options))
        assert done.code == 2 and message in done.err

    def test_unnamed_classes(self, command: Command, tmp_path: Path, theirs: Path, scenes: Path) -> None:
        numbered = tmp_path / "numbered.onnx"
        assert command("export", "--from-onnx", theirs, "-o", numbered, "--mean", "0.5", "--std", "0.5").code == 0
        done = command("validate", numbered, "--data", scenes)
        assert done.code == 2 and "--labels FILE" in done.err


class TestQuantize:
    """int8 export of a file of another framework, with that file as the reference."""

    FRONT = ("--mean", "0.5", "--std", "0.5")

    def test_predictions_and_maps_match_the_file(
        self, command: Command, tmp_path: Path, theirs: Path, scenes: Path
    ) -> None:
        ours = tmp_path / "ours.onnx"
        done = command("export", "--from-onnx", theirs, "-o", ours, *self.FRONT, "--quantize", "--data", scenes)
        assert done.code == 0, done.err
        assert re.search(r"held out: agreement \d+\.\d %, map Pearson 0\.\d+ on \d+ training images", done.err)
        fp32, int8 = Model.load(ours), Model.load(tmp_path / "ours.int8.onnx")
        note = int8.metadata.quantization
        assert note is not None and note["calibration_images"] > 0 and note["device"] == "generic"
        assert note["held_out"]["map_pearson"] > 0.98
        assert int8.metadata.labels == fp32.metadata.labels and int8.metadata.outputs == fp32.metadata.outputs
        images = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
        exact, rounded = fp32.predict(images, 1), int8.predict(images, 1)
        assert np.abs(exact.logits - rounded.logits).max() < 0.1 * np.ptp(exact.logits)
        assert exact.saliency_map is not None and rounded.saliency_map is not None
        assert np.corrcoef(exact.saliency_map.ravel(), rounded.saliency_map.ravel())[0, 1] > 0.98
        nodes = onnx.load(tmp_path / "ours.int8.onnx").graph.node
        dequantized = {item.output[0] for item in nodes if item.op_type == "DequantizeLinear"}
        assert all(set(item.input[:2]) <= dequantized for item in nodes if item.op_type == "Conv")

    def test_old_opset_with_fixed_batch(self, command: Command, tmp_path: Path, scenes: Path) -> None:
        torch.manual_seed(0)
        path = tmp_path / "old.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(Small().eval(), (torch.randn(1, 3, SIDE, SIDE),), path, dynamo=False, opset_version=9)
        options = ("--quantize", "--data", scenes, "--device", "raspberry-pi-5")
        done = command("export", "--from-onnx", path, "-o", tmp_path / "ours.onnx", *self.FRONT, *options)
        assert done.code == 0, done.err
        note = Model.load(tmp_path / "ours.int8.onnx").metadata.quantization
        assert note is not None and note["device"] == "raspberry-pi-5" and note["held_out"]["map_pearson"] > 0.98
        labels = tmp_path / "labels.txt"
        labels.write_text("\n".join(sorted(path.name for path in (scenes / "val").iterdir())))
        ours = tmp_path / "named.onnx"
        assert command("export", "--from-onnx", path, "-o", ours, *self.FRONT, "--labels", labels).code == 0
        done = command("validate", ours, "--data", scenes, "--out", tmp_path / "report")
        assert done.code in (0, 4), done.err
        report = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
        assert report["faithfulness"] is not None and report["robustness"] is not None

    def test_missed_goal_leaves_no_file(self, command: Command, tmp_path: Path, theirs: Path, scenes: Path) -> None:
        (tmp_path / "ours.int8.onnx").write_bytes(b"from an earlier export")
        options = ("--quantize", "--data", scenes, "--keep-heatmaps", "0.99999999")
        done = command("export", "--from-onnx", theirs, "-o", tmp_path / "ours.onnx", *self.FRONT, *options)
        assert done.code == 4 and "No int8 file was written" in done.err
        assert (tmp_path / "ours.onnx").is_file() and not (tmp_path / "ours.int8.onnx").exists()

    def test_unquantizable_files(self, command: Command, tmp_path: Path, theirs: Path, scenes: Path) -> None:
        options = ("--quantize", "--data", scenes)
        done = command("export", "--from-onnx", theirs, "-o", tmp_path / "map.onnx", *options)
        assert done.code == 2 and "Add --mean MEAN --std STD" in done.err
        assert command("export", "--from-onnx", theirs, "-o", tmp_path / "a.onnx", *self.FRONT, *options).code == 0
        done = command("export", "--from-onnx", tmp_path / "a.int8.onnx", "-o", tmp_path / "b.onnx", *options)
        assert done.code == 2 and "is already quantized" in done.err


class TestTimes:
    """Figures measured while other programs ran are marked."""

    @pytest.mark.parametrize("waiting", [0.0, 1000.0], ids=["idle", "busy"])
    def test_busy_machine_is_reported(
        self, command: Command, tmp_path: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch, waiting: float
    ) -> None:
        monkeypatch.setattr(timing.os, "getloadavg", lambda: (waiting, 0.0, 0.0))
        monkeypatch.setattr(timing, "_LEAST_SHARE", 0.0)
        done = command("export", "--from-onnx", theirs, "-o", tmp_path / "o.onnx", "--mean", "0", "--std", "1/255")
        assert done.code == 0, done.err
        assert ("using this machine" in done.err) == (waiting > 0)
        assert re.search(r"cost of the map: .* × the MACs", done.err)
        assert re.search(r"cost of uint8 input: (\d+\.\d\d × the|no measurable) latency", done.err)
        page = tmp_path / "page.html"
        listed = command("inspect", theirs, "-o", page)
        assert ("using this machine" in listed.err) == (waiting > 0)
        assert ("while the machine was busy" in page.read_text()) == (waiting > 0)

    def test_preprocessing_is_measured_for_any_input_name(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        model = onnx.load(theirs)
        (own,) = (value.name for value in model.graph.input)
        model.graph.input[0].name = "image"
        for item in model.graph.node:
            item.input[:] = ["image" if name == own else name for name in item.input]
        onnx.save(model, tmp_path / "image.onnx")
        done = command("export", "--from-onnx", tmp_path / "image.onnx", "--mean", "0.5", "--std", "0.5")
        assert "cost of uint8 input" in done.err

    def test_file_without_preprocessing_has_no_preprocessing_cost(
        self, command: Command, tmp_path: Path, theirs: Path
    ) -> None:
        assert "uint8 input" not in command("export", "--from-onnx", theirs, "-o", tmp_path / "o.onnx").err


class TestInspect:
    def test_foreign_file(self, command: Command, tmp_path: Path, theirs: Path) -> None:
        done = command("inspect", theirs, "-o", tmp_path / "page.html")
        assert done.code == 0, done.err
        header, *layers = done.out.splitlines()
        assert header.split() == ["layer", "operator", "output", "parameters", "MMACs", "ms"]
        convolutions = [line.split() for line in layers if " Conv " in line]
        assert [(positions[2], positions[3]) for positions in convolutions] == [
            ("1×8×16×16", "224"),
            ("1×12×8×8", "876"),
        ]
        page = Page.of(tmp_path / "page.html")
        assert page.titles == ["Compute and latency per layer", "Classifier weights", "Layers"]
        assert page.rows["layers"] == len(layers)

    def test_image_attribution(self, command: Command, tmp_path: Path, runnable: Path, photo: Path) -> None:
        done = command("inspect", runnable, photo, "--class", "cup", "-o", tmp_path / "page.html")
        assert done.code == 0, done.err
        assert "explained: cup" in done.err
        assert "8 × 8  gradient × activation: half of the attribution in" in done.err
        page = Page.of(tmp_path / "page.html")
        assert page.titles[:2] == ["Attribution from coarse to fine", "Channel contributions per class"]
        text = (tmp_path / "page.html").read_text()
        assert "bottle &amp; cap" in text and "scene &lt;1&gt;.png" in text
        assert page.rows["features"] == CLASSES

    def test_run_folder(self, command: Command, tmp_path: Path, exported_run: Path, photo: Path) -> None:
        done = command("inspect", exported_run, photo, "-o", tmp_path / "page.html")
        assert done.code == 0, done.err
        Page.of(tmp_path / "page.html")

    def test_quantized_file(self, command: Command, tmp_path: Path, exported_run: Path, photo: Path) -> None:
        done = command("inspect", exported_run / "model.int8.onnx", photo, "-o", tmp_path / "page.html")
        assert done.code == 0, done.err
        assert "QuantizeLinear" in done.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere.onnx"], "There is no model file nowhere.onnx"),
            (["THEIRS", "PHOTO"], "has no preprocessing for images"),
            (["OURS", "--class", "cup"], "Give an image too"),
            (["OURS", "PHOTO", "--class", "spoon"], "no class 'spoon'"),
            (["OURS", "-o", "page.svg"], "must end in .html"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_invalid_arguments(
        self, command: Command, theirs: Path, runnable: Path, photo: Path, arguments: list[str], message: str
    ) -> None:
        places = {"THEIRS": theirs, "OURS": runnable, "PHOTO": photo}
        done = command("inspect", *(places.get(word, word) for word in arguments))
        assert done.code == 2
        assert message in done.err

    def test_folder_without_model(self, command: Command, tmp_path: Path) -> None:
        done = command("inspect", tmp_path)
        assert done.code == 2 and f"kdedge export {tmp_path}" in done.err


class TestExplainPage:
    def test_single_image_has_page_and_drawing(
        self, command: Command, tmp_path: Path, runnable: Path, photo: Path
    ) -> None:
        done = command("explain", runnable, photo, "-o", tmp_path)
        assert done.code == 0, done.err
        written = [Path(line.split("  ")[0]) for line in done.out.splitlines()]
        names = [f"scene <1>{suffix}" for suffix in (".png", ".html", ".svg", ".decision.png")]
        assert [path.name for path in written] == names
        Page.of(written[1])
        drawing = ElementTree.parse(written[2]).getroot()
        pictures = [item for item in drawing.iter() if item.tag.endswith("}image")]
        assert all(item.attrib["href"].startswith("data:image/") for item in pictures)
        texts = {"".join(item.itertext()) for item in drawing.iter() if item.tag.endswith("}text")}
        assert {"image", "8 × 8 map", "16 × 16 map"} <= texts
        _, _, width, height = map(float, drawing.attrib["viewBox"].split())
        with Image.open(written[3]) as picture:
            assert picture.size == (2 * width, 2 * height)

    def test_several_images_have_pages_only_on_request(
        self, command: Command, tmp_path: Path, runnable: Path, photo: Path
    ) -> None:
        for option, suffixes in (((), {".png"}), (("--page",), {".png", ".html", ".svg"})):
            out = tmp_path / f"out{len(suffixes)}"
            assert command("explain", runnable, photo, photo, "-o", out, *option).code == 0
            assert {path.suffix for path in out.iterdir()} == suffixes

    def test_page_can_be_disabled(self, command: Command, tmp_path: Path, runnable: Path, photo: Path) -> None:
        assert command("explain", runnable, photo, "-o", tmp_path, "--no-page").code == 0
        assert [path.suffix for path in tmp_path.iterdir()] == [".png"]


_VOID = frozenset({"meta", "br", "img", "hr", "link", "input"})


class Page(HTMLParser):
    """HTML parser that checks that a page is well-formed, has no scripts, and loads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.rows: dict[str, int] = {}
        self.table = ""

    @classmethod
    def of(cls, path: Path) -> "Page":
        page = cls()
        text = path.read_text("utf-8")
        page.feed(text)
        assert page.open == []
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        given = dict(attrs)
        assert all(value is None or value.startswith("data:image/") for key, value in attrs if key in ("src", "href"))
        if tag == "table":
            self.table = str(given.get("class"))
        if tag == "tr" and "tbody" in self.open:
            self.rows[self.table] = self.rows.get(self.table, 0) + 1
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2" and data != "How to read this page":
            self.titles.append(data)

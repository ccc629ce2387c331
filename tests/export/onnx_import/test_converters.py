"""Files written by converters of other frameworks, compared with the frameworks' own gradients."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from kdedge.cli.from_onnx import print_explained
from kdedge.pipelines.onnx_explanation import explain_onnx
from kdedge_export.onnx_import import PixelInput, add_saliency
from kdedge_runtime import Model

FILES = Path(__file__).parents[1] / "files"
KERAS, FLAX = FILES / "keras.tiny.export.onnx", FILES / "jax.tiny.jax2onnx23.onnx"
HALF, RAW = PixelInput((0.5,) * 3, (0.5,) * 3), PixelInput((0.0,) * 3, (1 / 255,) * 3)
TOLERANCE = 1e-4

both = pytest.mark.parametrize(("path", "pixels"), [(KERAS, RAW), (FLAX, HALF)], ids=["Keras", "flax"])


def known(path: Path) -> dict[str, np.ndarray]:
    with np.load(path.with_name(".".join(path.name.split(".")[:2]) + ".npz")) as held:
        return {name: held[name] for name in ("images", "logits", "map")}


def error(measured: np.ndarray, expected: np.ndarray) -> float:
    assert measured.shape == expected.shape
    return float(np.abs(measured - expected).max() / np.abs(expected).max())


@both
def test_map_matches_the_frameworks_grad_cam(tmp_path: Path, path: Path, pixels: PixelInput) -> None:
    done = add_saliency(path, tmp_path / "ours.onnx", pixels=pixels, method="gradcam")
    expected = known(path)
    found = Model.load(done.path).predict(expected["images"])
    assert done.outputs.method == "gradcam"
    assert error(found.logits, expected["logits"]) <= TOLERANCE
    assert found.saliency_map is not None and error(found.saliency_map, expected["map"]) <= TOLERANCE


@both
def test_own_outputs_are_bit_exact(tmp_path: Path, path: Path, pixels: PixelInput) -> None:
    before = ort.InferenceSession(path)
    ours = ort.InferenceSession(add_saliency(path, tmp_path / "ours.onnx").path)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    image, *unread = (item.name for item in before.get_inputs())
    idle = {name: np.full((1, 1, 1, 3), 7, np.float32) for name in unread}
    (expected,) = before.run(None, {image: x} | idle)
    assert np.array_equal(ours.run(None, {image: x})[0], expected)


def test_unused_inputs_are_removed_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keras's `Normalization` has constants that tf2onnx folds but still declares as inputs."""
    listed = [value.name for value in onnx.load(KERAS).graph.input]
    unread = ("functional_1/normalization_1/Sub/y:0", "functional_1/normalization_1/Sqrt/x:0")
    assert listed == ["image", *unread]
    result = explain_onnx(KERAS, output=tmp_path / "ours.onnx")
    assert [item.name for item in ort.InferenceSession(result.file.path).get_inputs()] == ["image"]
    assert result.left_out == unread
    print_explained(result, KERAS)
    assert f"inputs {', '.join(unread)} are not used" in capsys.readouterr().err

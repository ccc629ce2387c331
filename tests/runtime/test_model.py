"""Loaded models: predictions, maps, class selection and invalid files."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.model import Explanation, Model
from kdedge_runtime.util.arrays import softmax


def test_prediction_and_map_match_reference(model: Model, red_spot: np.ndarray) -> None:
    explanation = model.predict(red_spot[None])
    weights = 8.0 * (1.5 * np.eye(3) - 0.5)
    positions = (red_spot / 255.0).reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))
    maps = positions @ weights.T
    np.testing.assert_allclose(explanation.logits[0], maps.mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(explanation.saliency_map[0], maps[..., 0], rtol=1e-4, atol=1e-5)
    assert explanation.explained_class.tolist() == [0]
    assert explanation.scores.sum() == pytest.approx(1, abs=1e-6)


def test_batch_items_are_explained_for_their_top_class(model: Model, red_spot: np.ndarray) -> None:
    batch = np.stack([np.roll(red_spot, shift, axis=2) for shift in range(3)])
    explanation = model.predict(batch)
    assert explanation.explained_class.tolist() == [0, 1, 2]
    assert explanation.saliency_map.shape == (3, 8, 8)


def test_fixed_class_changes_only_the_map(model: Model, red_spot: np.ndarray) -> None:
    free, pinned = model.predict(red_spot[None]), model.predict(red_spot[None], class_index=2)
    np.testing.assert_array_equal(free.logits, pinned.logits)
    assert pinned.explained_class.tolist() == [2]
    assert free.saliency_map.max() > 0 > pinned.saliency_map.min()
    # The class does not persist: the default is an initializer, not a state.
    np.testing.assert_array_equal(model.predict(red_spot[None]).saliency_map, free.saliency_map)


def test_model_without_map_returns_only_predictions(write_model: Callable[..., Path], red_spot: np.ndarray) -> None:
    model = Model.load(write_model(method="none"))
    explanation = model.predict(red_spot[None])
    assert not model.has_map
    assert explanation.saliency_map is None
    assert explanation.explained_class.tolist() == [0]


def test_class_is_found_by_name_or_index(model: Model) -> None:
    assert (model.class_index("green"), model.class_index("2")) == (1, 2)
    for unknown in ("purple", "3", "-1", "²"):
        with pytest.raises(UsageError, match="red, green, blue"):
            model.class_index(unknown)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 63, 64, 3), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((1, 3, 64, 64), np.uint8),
        np.zeros((1, 64, 64, 3), np.float32),
    ],
)
def test_images_of_wrong_shape_or_dtype_are_rejected(model: Model, images: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"uint8 image samples of shape \(N, 64, 64, 3\)"):
        model.predict(images)


def test_class_index_out_of_range_is_rejected(model: Model, red_spot: np.ndarray) -> None:
    with pytest.raises(UsageError, match="3 classes"):
        model.predict(red_spot[None], class_index=3)


def test_invalid_model_files_have_specific_errors(tmp_path: Path, write_model: Callable[..., Path]) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        Model.load(tmp_path / "missing.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x09half a model")
    with pytest.raises(ModelFileError, match="cannot read"):
        Model.load(broken)
    with pytest.raises(ModelFileError, match="no kdedge metadata"):
        Model.load(write_model(props={}))


def test_graph_that_contradicts_metadata_is_rejected(write_model: Callable[..., Path]) -> None:
    with pytest.raises(ModelFileError, match="for 2 labels"):
        Model.load(write_model(labels=("red", "green")))
    spec = ImageInput(64, 64, (0.0,) * 3, (1.0,) * 3)
    wrong = Metadata(("a", "b", "c"), replace(spec, height=96, name="frame"), Outputs("cam", None, None, 8, 8))
    with pytest.raises(ModelFileError, match="no input frame"):
        Model.load(write_model(props=wrong.to_props()))
    wrong = replace(wrong, input=replace(spec, height=96))
    with pytest.raises(ModelFileError, match=r"\['N', 64, 64, 3\].*\[N, 96, 64, 3\]"):
        Model.load(write_model(props=wrong.to_props()))
    with pytest.raises(ModelFileError, match="no output explained_class, no output saliency_map"):
        Model.load(write_model(method="none", props=replace(wrong, input=spec).to_props()))


@pytest.mark.parametrize("threads", [0, -1, 257, 100_000])
def test_excessive_threads_are_rejected(model_path: Path, threads: int) -> None:
    with pytest.raises(UsageError, match=f"{threads} threads .*Expected 1 to 256"):
        Model.load(model_path, threads=threads)


def test_provider_is_used_or_rejected(model_path: Path) -> None:
    assert Model.load(model_path, provider="cpu").provider == "CPUExecutionProvider"
    with pytest.raises(UsageError, match="warp"):
        Model.load(model_path, provider="warp")


def test_input_name_comes_from_metadata(write_model: Callable[..., Path]) -> None:
    spec = ImageInput(64, 64, (0.0,) * 3, (1.0,) * 3, name="picture")
    assert Model.load(write_model(spec=spec)).predict(np.zeros((2, 64, 64, 3), np.uint8)).logits.shape == (2, 3)


def test_softmax_does_not_overflow() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4, -1e4]], np.float32)), [[0.5, 0.5, 0.0]])


def test_failed_provider_has_no_fallback(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that onnxruntime's silent fallback to the CPU is disabled."""
    claimed = ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("kdedge_runtime.model.ort.get_available_providers", lambda: claimed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UsageError, match="would use the CPU instead"):
            Model.load(model_path, provider="tensorrt")


def test_batches_can_be_split_and_joined(model: Model) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    whole = model.predict(samples)
    parts = [whole.of_sample(index) for index in range(3)]
    for sample, part in zip(samples, parts, strict=True):
        alone = model.predict(sample[None])
        np.testing.assert_allclose(part.scores, alone.scores, rtol=1e-5)
        np.testing.assert_allclose(part.saliency_map, alone.saliency_map, rtol=1e-4, atol=1e-6)
        assert part.display == whole.display
    joined = Explanation.concatenate(parts)
    for name in ("logits", "scores", "explained_class", "saliency_map"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    bare = model.predict(samples, explained=False)
    assert Explanation.concatenate([bare.of_sample(2), bare.of_sample(0)]).saliency_map is None

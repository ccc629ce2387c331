"""Golden frames: drawn the same everywhere, small in the file, and what they say is what the file says."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from golden_files import reference_of_saturating_model, saturating_model, wide_model, with_golden, with_metadata

from kdedge_runtime.diagnostics.reference_frames import Golden, draw_frame, mean_error, record
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.model import Model

FIRST_FRAME_SHA256 = "1a12f859405a12941bf21f6488f2ed039f0ac105cbd798ef0e7a5f5fdce25db4"


def test_frames_are_the_same_on_every_machine_and_in_every_version() -> None:
    # A change of these bytes breaks the self-test of every file that was ever exported.
    drawn = draw_frame(0, 64, 48)
    assert (drawn.shape, drawn.dtype) == ((64, 48, 3), np.uint8)
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == FIRST_FRAME_SHA256


def test_frames_differ_and_use_the_whole_range() -> None:
    frames = np.stack([draw_frame(seed, 96, 96) for seed in range(4)])
    assert len({frame.tobytes() for frame in frames}) == 4
    assert frames.min() < 20 and frames.max() > 235
    assert np.abs(np.diff(frames[0].astype(int), axis=0)).max() > 60, "there are hard edges"


def test_a_file_brings_what_it_says_itself(write_model: Callable[..., Path]) -> None:
    model = Model.load(with_golden(write_model()), threads=1)
    golden = Golden.of(model)
    assert golden.images.shape == (4, 64, 64, 3)
    said = model.predict(golden.images)
    np.testing.assert_allclose(golden.logits, said.logits, rtol=1e-4, atol=1e-5)
    assert said.saliency_map is not None and golden.saliency_map is not None
    np.testing.assert_allclose(golden.saliency_map, said.saliency_map, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(golden.explained_class, said.explained_class)
    assert golden.logits_rounding < 1e-5 and golden.map_rounding < 1e-5


def test_a_file_without_a_map_has_frames_without_one(write_model: Callable[..., Path]) -> None:
    golden = Golden.of(Model.load(with_golden(write_model(method="none")), threads=1))
    assert golden.saliency_map is None and golden.logits.shape == (4, 3)


def test_frames_take_little_of_the_file(write_model: Callable[..., Path]) -> None:
    assert len(json.dumps(record(write_model()))) < 5_000


def test_with_very_many_classes_there_are_fewer_frames(tmp_path: Path) -> None:
    path = wide_model(tmp_path / "wide.onnx", classes=9_000)
    golden = Golden.of(Model.load(with_golden(path), threads=1))
    assert golden.logits.shape == (1, 9_000)
    assert len(json.dumps(record(path))) < 60_000


def test_int8_frames_hold_exact_sums(tmp_path: Path) -> None:
    """What 16-bit sums of pairs cannot hold, with weights and activations at their limits, is recorded exactly."""
    path = saturating_model(tmp_path / "qdq.onnx")
    golden = record(path)
    model = Model.load(with_golden(path), threads=1)
    expected = reference_of_saturating_model(Golden.of(model).images)
    np.testing.assert_allclose(Golden.of(model).logits, expected, rtol=1e-5)
    assert golden["logits_rounding"] < 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": 0},
        {"frames": 3},
        {"frames": 10**9},
        {"logits": "AAAA"},
        {"logits": "not base64"},
        {"explained_class": [0]},
        {"saliency_map": None},
        {"images_sha256": "0" * 64},
    ],
)
def test_damaged_frames_are_told(write_model: Callable[..., Path], changes: dict[str, object]) -> None:
    with pytest.raises(ModelFileError, match=r"reference frames of .* are damaged .*Export it again"):
        Golden.of(Model.load(with_golden(write_model(), **changes)))


def test_a_file_without_frames_is_told_what_to_do(model: Model) -> None:
    with pytest.raises(ModelFileError, match=r"contains no reference frames .* Export it again"):
        Golden.of(model)


def test_golden_frames_that_are_no_table_damage_the_file(write_model: Callable[..., Path]) -> None:
    with pytest.raises(ModelFileError, match="metadata is damaged"):
        Model.load(with_metadata(write_model(), golden=[1]))


def test_the_mean_error_is_relative_and_keeps_what_is_not_a_number() -> None:
    expected = np.array([[0.0, 10.0], [0.0, 1.0]], dtype=np.float32)
    said = np.array([[0.0, 11.0], [0.3, 1.0]], dtype=np.float32)
    assert mean_error(said, expected) == pytest.approx((0.1 + 0.3) / 2)
    one_cell = np.full((2, 1, 1), 5.0, dtype=np.float32)
    assert mean_error(one_cell + 1e-6, one_cell) < 1e-3, "without a range, rounding is that of the magnitude"
    assert mean_error(one_cell * 1.1, one_cell) > 1
    said[0, 0] = np.nan
    assert np.isnan(mean_error(said, expected))

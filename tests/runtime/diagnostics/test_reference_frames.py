"""Reference frames: reproducible, small and consistent with the model."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reference_files import (
    reference_of_saturating_model,
    saturating_model,
    wide_model,
    with_metadata,
    with_reference_frames,
)

from kdedge_runtime.diagnostics.reference_frames import (
    ReferenceFrames,
    mean_error,
    record_reference_frames,
)
from kdedge_runtime.drawing.reference_image import draw_reference_image
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.model import Model

FIRST_FRAME_SHA256 = "1a12f859405a12941bf21f6488f2ed039f0ac105cbd798ef0e7a5f5fdce25db4"


def test_frames_are_reproducible() -> None:
    # A change of these bytes breaks the self-test of every exported file.
    drawn = draw_reference_image(0, 64, 48)
    assert (drawn.shape, drawn.dtype) == ((64, 48, 3), np.uint8)
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == FIRST_FRAME_SHA256


def test_frames_differ_and_use_the_full_range() -> None:
    frames = np.stack([draw_reference_image(seed, 96, 96) for seed in range(4)])
    assert len({frame.tobytes() for frame in frames}) == 4
    assert frames.min() < 20 and frames.max() > 235
    assert np.abs(np.diff(frames[0].astype(int), axis=0)).max() > 60, "hard edges"


def test_recorded_outputs_match_the_model(write_model: Callable[..., Path]) -> None:
    model = Model.load(with_reference_frames(write_model()), threads=1)
    reference = ReferenceFrames.of(model)
    assert reference.samples.shape == (4, 64, 64, 3)
    outputs = model.predict(reference.samples)
    np.testing.assert_allclose(reference.logits, outputs.logits, rtol=1e-4, atol=1e-5)
    assert outputs.saliency_map is not None and reference.saliency_map is not None
    np.testing.assert_allclose(reference.saliency_map, outputs.saliency_map, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(reference.explained_class, outputs.explained_class)
    assert reference.logits_rounding < 1e-5 and reference.map_rounding < 1e-5


def test_model_without_map_records_no_map(write_model: Callable[..., Path]) -> None:
    reference = ReferenceFrames.of(Model.load(with_reference_frames(write_model(method="none")), threads=1))
    assert reference.saliency_map is None and reference.logits.shape == (4, 3)


def test_recorded_frames_are_small(write_model: Callable[..., Path]) -> None:
    assert len(json.dumps(record_reference_frames(write_model()))) < 5_000


def test_many_classes_reduce_the_number_of_frames(tmp_path: Path) -> None:
    path = wide_model(tmp_path / "wide.onnx", classes=9_000)
    reference = ReferenceFrames.of(Model.load(with_reference_frames(path), threads=1))
    assert reference.logits.shape == (1, 9_000)
    assert len(json.dumps(record_reference_frames(path))) < 60_000


def test_int8_frames_record_exact_sums(tmp_path: Path) -> None:
    """Sums that overflow 16 bits are recorded exactly."""
    path = saturating_model(tmp_path / "qdq.onnx")
    reference = record_reference_frames(path)
    model = Model.load(with_reference_frames(path), threads=1)
    expected = reference_of_saturating_model(ReferenceFrames.of(model).samples)
    np.testing.assert_allclose(ReferenceFrames.of(model).logits, expected, rtol=1e-5)
    assert reference["logits_rounding"] < 0.01


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
        {"samples_sha256": "0" * 64},
    ],
)
def test_damaged_frames_raise(write_model: Callable[..., Path], changes: dict[str, object]) -> None:
    with pytest.raises(ModelFileError, match=r"reference frames of .* are damaged .*Export it again"):
        ReferenceFrames.of(Model.load(with_reference_frames(write_model(), **changes)))


def test_missing_frames_error_names_the_fix(model: Model) -> None:
    with pytest.raises(ModelFileError, match=r"contains no reference frames .* Export it again"):
        ReferenceFrames.of(model)


def test_frames_of_wrong_type_are_damaged_metadata(write_model: Callable[..., Path]) -> None:
    with pytest.raises(ModelFileError, match="metadata is damaged"):
        Model.load(with_metadata(write_model(), reference_frames=[1]))


def test_mean_error_is_relative_and_propagates_nan() -> None:
    expected = np.array([[0.0, 10.0], [0.0, 1.0]], dtype=np.float32)
    outputs = np.array([[0.0, 11.0], [0.3, 1.0]], dtype=np.float32)
    assert mean_error(outputs, expected) == pytest.approx((0.1 + 0.3) / 2)
    one_position = np.full((2, 1, 1), 5.0, dtype=np.float32)
    assert mean_error(one_position + 1e-6, one_position) < 1e-3, (
        "constant outputs are compared relative to their magnitude"
    )
    assert mean_error(one_position * 1.1, one_position) > 1
    outputs[0, 0] = np.nan
    assert np.isnan(mean_error(outputs, expected))

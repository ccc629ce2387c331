"""Reference frames: generated samples and their expected outputs, stored in the model file for self-tests.

The modality generates the samples from seeds with integer arithmetic (`InputSpec.reference_sample`). They need no space
in the file, contain no personal data, and are identical on every machine. Images of colored squares at full contrast
drive int8 kernels to their limits. Kernels that saturate have much larger errors on them than rounding causes.

Expected outputs are computed from the quantized values with exact float sums, also for int8 files. They are correct
even if the exporting machine saturates. They are computed twice, with two summation orders. Values on the edge between
two quantized values may round either way, and the resulting output difference is the tolerance of this model.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.int8_arithmetic import use_exact_sums
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.modalities import InputSpec, Sample
from kdedge_runtime.model import Model
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["MAX_ROUNDING", "ReferenceFrames", "mean_error", "record_reference_frames"]

_FRAMES = 4
_BYTES = 45_000
"""Maximum size before base64 encoding. Models with very many classes get fewer frames."""
MAX_ROUNDING = 0.1
"""Largest tolerance relative to the output range. A file with a larger value would disable its own self-test."""
_MIN_RANGE = 1e-3
"""Lower bound of the output range relative to the magnitude, because the range of a nearly constant output, such as a
1×1 map, is only rounding.
"""


@dataclass(frozen=True, eq=False)
class ReferenceFrames:
    """Reference samples and their expected outputs."""

    samples: Sample
    """Reference samples, `[G, …]` as the graph takes them."""
    logits: Floats
    """Expected logits, `[G, K]`."""
    explained_class: Integers
    """Explained class indices, `[G]`."""
    saliency_map: Floats | None
    """Expected maps `[G, h, w]`, or None for a model without a map."""
    logits_rounding: float
    """Mean error (see `mean_error`) between two summation orders, in [0, `MAX_ROUNDING`]."""
    map_rounding: float
    familiarity: Floats | None = None
    """Expected familiarity, `[G]`; None for a model without it."""
    familiarity_rounding: float = 0.0
    """Error between two summation orders relative to the range over the frames, in [0, `MAX_ROUNDING`]."""

    @classmethod
    def of(cls, model: Model) -> "ReferenceFrames":
        """Read the reference frames of a model file.

        Raises:
            ModelFileError: they are missing or damaged, or this version generates different samples.
        """
        values = model.metadata.reference_frames
        if values is None:
            raise ModelFileError(
                f"{model.path} contains no reference frames for the self-test. Export it again with this version of "
                "kdedge."
            )
        try:
            count, outputs = int(values["frames"]), model.metadata.outputs
            if not 1 <= count <= _FRAMES:
                raise ValueError(f"{count} frames, expected 1 to {_FRAMES}")
            samples = _draw(count, model.metadata.input)
            if values["samples_sha256"] != hashlib.sha256(samples.tobytes()).hexdigest():
                raise ValueError("this version of kdedge-runtime generates different samples")
            logits = _unpack(values["logits"], (count, len(model.metadata.labels)))
            classes = np.array(values["explained_class"], dtype=np.int64)
            positions = None
            if values["saliency_map"] is not None:
                positions = _unpack(values["saliency_map"], (count, outputs.map_height or 0, outputs.map_width or 0))
            rounding = [float(values[key]) for key in ("logits_rounding", "map_rounding")]
            familiarity, familiarity_rounding = None, float(values.get("familiarity_rounding", 0.0))
            if model.metadata.familiarity is not None:
                familiarity = _unpack(values["familiarity"], (count,))
            if classes.shape != (count,) or (positions is None) == model.has_map:
                raise ValueError("they do not match the model")
            if not all(0 <= each <= MAX_ROUNDING for each in (*rounding, familiarity_rounding)):  # False for NaN
                raise ValueError(f"rounding {rounding}, expected 0 to {MAX_ROUNDING:g}")
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise ModelFileError(
                f"The reference frames of {model.path} are damaged ({str(error)[:200]}). Export it again."
            ) from error
        return cls(
            samples=samples,
            logits=logits,
            explained_class=classes,
            saliency_map=positions,
            logits_rounding=rounding[0],
            map_rounding=rounding[1],
            familiarity=familiarity,
            familiarity_rounding=familiarity_rounding,
        )


def record_reference_frames(path: Path) -> dict[str, Any]:
    """Compute the reference frames of a model file, in the format of `Metadata.reference_frames`.

    Args:
        path: model file that is complete except for its reference frames.
    """
    model = _exact_model(path, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    otherwise = _exact_model(path, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    metadata = model.metadata
    positions = (metadata.outputs.map_height or 0) * (metadata.outputs.map_width or 0)
    count = min(_FRAMES, max(1, _BYTES // (4 * (len(metadata.labels) + positions))))
    samples = _draw(count, metadata.input)
    logits, maps, classes, familiarity = _run_model(model, samples)
    other_logits, other_maps, _, other_familiarity = _run_model(otherwise, samples, classes)
    expected: dict[str, Any] = {}
    if familiarity is not None and other_familiarity is not None:
        rounding = mean_error(other_familiarity[None], familiarity[None])
        expected = {"familiarity": _pack(familiarity), "familiarity_rounding": min(MAX_ROUNDING, rounding)}
    return expected | {
        "frames": count,
        "samples_sha256": hashlib.sha256(samples.tobytes()).hexdigest(),
        "explained_class": classes.tolist(),
        "logits": _pack(logits),
        "logits_rounding": min(MAX_ROUNDING, mean_error(other_logits, logits)),
        "saliency_map": None if maps is None else _pack(maps),
        "map_rounding": 0.0 if maps is None or other_maps is None else min(MAX_ROUNDING, mean_error(other_maps, maps)),
    }


def mean_error(found: Floats, expected: Floats) -> float:
    """Return the mean over frames of the largest error, relative to the output range of the frame.

    The mean is used because rounding affects some frames, but saturation affects all. The range is at least a
    thousandth of the magnitude. The result is NaN if any value is NaN.

    Args:
        found: actual outputs, `[G, …]`.
        expected: expected outputs, same shape.
    """
    count = len(expected)
    differences = np.abs(found - expected).reshape(count, -1).max(axis=1)
    flat = expected.reshape(count, -1)
    ranges = np.maximum(np.ptp(flat, axis=1), _MIN_RANGE * np.abs(flat).max(axis=1))
    return float((differences / np.maximum(ranges, 1e-12)).mean())


def _exact_model(path: Path, level: ort.GraphOptimizationLevel) -> Model:
    """Load a model that keeps the quantized values but sums in float, without int8 kernels."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    use_exact_sums(options)
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return Model(path, Metadata.from_props(session.get_modelmeta().custom_metadata_map), session)


def _run_model(
    model: Model, samples: Sample, classes: Integers | None = None
) -> tuple[Floats, Floats | None, Integers, Floats | None]:
    """Return logits, maps, explained classes and familiarity of samples, computed one by one as on a device."""
    predictions = [
        model.predict(sample[None], None if classes is None else int(classes[number]))
        for number, sample in enumerate(samples)
    ]
    maps = [one.saliency_map for one in predictions if one.saliency_map is not None]
    familiarity = [one.familiarity for one in predictions if one.familiarity is not None]
    return (
        np.concatenate([one.logits for one in predictions]),
        np.concatenate(maps) if maps else None,
        np.concatenate([one.explained_class for one in predictions]),
        np.concatenate(familiarity) if familiarity else None,
    )


def _draw(count: int, spec: InputSpec) -> Sample:
    return np.stack([spec.reference_sample(seed) for seed in range(count)])


def _pack(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _unpack(text: str, shape: tuple[int, ...]) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").reshape(shape).astype(np.float32)

"""Golden frames: drawn pictures, and what the model has to say of them on every machine.

The pictures are drawn from numbers by whole-number arithmetic, so that they cost no byte in the file, hold nobody's
photo, and are the same everywhere. Coloured cells of three sizes in full contrast drive int8 kernels to their limits:
those that saturate err far more on them than rounding does.

What the model has to say is computed in float arithmetic, also of an int8 file: quantized values, exact sums. So the
machine that exports may itself saturate and the frames are true all the same. It is computed twice, with sums in two
orders: what lies on the edge between two quantized values falls either way, and how far that moves the outputs of this
very model is the rounding that its device must be granted.
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
from kdedge_runtime.int8_arithmetic import sum_exactly
from kdedge_runtime.metadata import ImageInput, Metadata
from kdedge_runtime.model import Model
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

__all__ = ["MOST_ROUNDING", "Golden", "draw_frame", "mean_error", "record"]

_FRAMES = 4
_BYTES = 45_000
"""At most, before base64: with very many classes there are fewer frames."""
MOST_ROUNDING = 0.1
"""Largest rounding, as a share of the outputs' range; a file that claims more would disable its own self-test."""
_CELLS = (3, 9, 27)
"""Cells a side of the layers of a picture."""
_LEAST_RANGE = 1e-3
"""Of their magnitude: outputs that are the same but for less, such as a map of one cell, have rounding for a range."""


@dataclass(frozen=True)
class Golden:
    """Pictures and the outputs that belong to them."""

    images: Pixels
    """`[G, H, W, 3]`."""
    logits: Floats
    """`[G, K]`."""
    explained_class: Integers
    """`[G]`."""
    saliency_map: Floats | None
    """`[G, h, w]`; None of a model without a map."""
    logits_rounding: float
    """Mean error (see `mean_error`) between two orders of summing, in [0, `MOST_ROUNDING`]."""
    map_rounding: float

    @classmethod
    def of(cls, model: Model) -> "Golden":
        """Read the golden frames of a model file.

        Raises:
            ModelFileError: it has none, they are damaged, or this version draws other pictures.
        """
        values = model.metadata.golden
        if values is None:
            raise ModelFileError(
                f"{model.path} brings no golden frames to test itself with. Export it again with this kdedge."
            )
        try:
            count, outputs = int(values["frames"]), model.metadata.outputs
            if not 1 <= count <= _FRAMES:
                raise ValueError(f"{count} of them, expected 1 to {_FRAMES}")
            images = _draw(count, model.metadata.input)
            if values["images_sha256"] != hashlib.sha256(images.tobytes()).hexdigest():
                raise ValueError("this kdedge-runtime draws other pictures")
            logits = _unpack(values["logits"], (count, len(model.metadata.labels)))
            classes = np.array(values["explained_class"], dtype=np.int64)
            cells = None
            if values["saliency_map"] is not None:
                cells = _unpack(values["saliency_map"], (count, outputs.map_height or 0, outputs.map_width or 0))
            rounding = [float(values[key]) for key in ("logits_rounding", "map_rounding")]
            if classes.shape != (count,) or (cells is None) == model.has_map:
                raise ValueError("they do not fit the model")
            if not all(0 <= each <= MOST_ROUNDING for each in rounding):  # a NaN is not
                raise ValueError(f"rounding {rounding}, expected 0 to {MOST_ROUNDING:g}")
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise ModelFileError(
                f"The golden frames of {model.path} are damaged ({str(error)[:200]}). Export it again."
            ) from error
        return cls(images, logits, classes, cells, *rounding)


def record(path: Path) -> dict[str, Any]:
    """What a model file has to say of its golden frames, as `Metadata.golden` holds it.

    Args:
        path: a model file that is complete but for them.
    """
    model = _exact_model(path, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    otherwise = _exact_model(path, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    metadata = model.metadata
    cells = (metadata.outputs.map_height or 0) * (metadata.outputs.map_width or 0)
    count = min(_FRAMES, max(1, _BYTES // (4 * (len(metadata.labels) + cells))))
    images = _draw(count, metadata.input)
    logits, maps, classes = _say(model, images)
    other_logits, other_maps, _ = _say(otherwise, images, classes)
    return {
        "frames": count,
        "images_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
        "explained_class": classes.tolist(),
        "logits": _pack(logits),
        "logits_rounding": min(MOST_ROUNDING, mean_error(other_logits, logits)),
        "saliency_map": None if maps is None else _pack(maps),
        "map_rounding": 0.0 if maps is None or other_maps is None else min(MOST_ROUNDING, mean_error(other_maps, maps)),
    }


def mean_error(said: Floats, expected: Floats) -> float:
    """Mean over frames of the largest difference, relative to the range of what is expected of the frame.

    The mean, since rounding strikes some frames and saturation all of them. NaN if anything is. Of outputs that are
    nearly the same, the range is a thousandth of their magnitude.

    Args:
        said: `[G, …]`.
        expected: of the same shape.
    """
    count = len(expected)
    differences = np.abs(said - expected).reshape(count, -1).max(axis=1)
    flat = expected.reshape(count, -1)
    ranges = np.maximum(np.ptp(flat, axis=1), _LEAST_RANGE * np.abs(flat).max(axis=1))
    return float((differences / np.maximum(ranges, 1e-12)).mean())


def draw_frame(seed: int, height: int, width: int) -> Pixels:
    """A picture of coloured cells in three sizes, uint8 RGB `[height, width, 3]`, the same on every machine."""
    layers = np.zeros((height, width, 3), dtype=np.uint16)
    for cells in _CELLS:
        colours = _noise(f"{seed}/{cells}", cells * cells * 3).reshape(cells, cells, 3)
        rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
        layers += colours[rows][:, columns]
    return (layers // len(_CELLS)).astype(np.uint8)


def _exact_model(path: Path, level: ort.GraphOptimizationLevel) -> Model:
    """Quantized values as they are in the file, but sums in float: no machine's int8 kernels have a part in it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    sum_exactly(options)
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return Model(path, Metadata.from_props(session.get_modelmeta().custom_metadata_map), session)


def _say(model: Model, images: Pixels, classes: Integers | None = None) -> tuple[Floats, Floats | None, Integers]:
    """Logits, maps and explained classes of images, one by one as on a device."""
    said = [
        model.predict(image[None], None if classes is None else int(classes[number]))
        for number, image in enumerate(images)
    ]
    maps = [one.saliency_map for one in said if one.saliency_map is not None]
    logits = np.concatenate([one.logits for one in said])
    return logits, np.concatenate(maps) if maps else None, np.concatenate([one.explained_class for one in said])


def _draw(count: int, spec: ImageInput) -> Pixels:
    return np.stack([draw_frame(seed, spec.height, spec.width) for seed in range(count)])


def _noise(key: str, count: int) -> Pixels:
    """Bytes that no version of any library draws otherwise."""
    blocks = (hashlib.sha256(f"{key}/{number}".encode()).digest() for number in range(-(-count // 32)))
    return np.frombuffer(b"".join(blocks)[:count], dtype=np.uint8)


def _pack(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _unpack(text: str, shape: tuple[int, ...]) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").reshape(shape).astype(np.float32)

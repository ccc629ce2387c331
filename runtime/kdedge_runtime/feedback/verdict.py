"""User feedback on one prediction."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self, TypeAlias, get_args

import numpy as np

from kdedge_runtime.drawing.heatmap import Box
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.table_column import LARGEST
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Floats

__all__ = ["Judgment", "Verdict"]

Judgment: TypeAlias = Literal["correct", "incorrect", "relabeled", "wrong_region", "unknown"]
"""Prediction `correct`, `incorrect`, corrected with another label or value (`relabeled`), correct with the map in the
wrong place (`wrong_region`), or of none of the classes (`unknown`).
"""
_MAX_LABEL_LENGTH = 200


@dataclass(frozen=True, eq=False)
class Verdict:
    """User feedback on one prediction, with frame and map.

    Raises:
        UsageError: the judgment is unknown; a label is missing, not allowed or too long; or the box is invalid.
    """

    judgment: Judgment
    content: bytes
    """Complete frame or region without its map, encoded as in a file."""
    suffix: str
    """Suffix of such files, such as `.jpg`."""
    kind: str
    """Modality of the sample, such as `image`: a key of `INPUT_SPECS`."""
    saliency_map: Floats | None
    """Raw signed map `[h, w]`, or None if the model has no map. Stored in half precision."""
    label: str
    """Predicted label."""
    score: float | None
    """Probability of `label`, or its cosine similarity in [-1, 1]; None for a regression."""
    explained: str
    """Label explained by the map."""
    frame_name: str
    model_sha256: str
    """SHA-256 of the model file."""
    at: datetime
    """Time of the feedback, with time zone."""
    correct_label: str | None = None
    """Correct label, or the number of a regression; only for the judgment `relabeled`."""
    box: Box | None = None
    """Bounding box of the object: left, top, right, bottom as fractions of the frame or region, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.judgment not in get_args(Judgment):
            raise UsageError(
                f"{self.judgment!r} is not a valid judgment. Expected one of {', '.join(get_args(Judgment))}."
            )
        if (self.judgment == "relabeled") != (self.correct_label is not None):
            raise UsageError("A correct label is required for the judgment `relabeled`, and not allowed for any other.")
        if self.correct_label is not None and not 0 < len(self.correct_label.strip()) <= _MAX_LABEL_LENGTH:
            raise UsageError(f"The correct label needs 1 to {_MAX_LABEL_LENGTH} characters.")
        if not _is_text(self.correct_label or ""):
            raise UsageError("The correct label contains an invalid character. Type it again.")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):  # also false for NaN
                raise UsageError(
                    f"{self.box} is not a valid box. Expected left < right and top < bottom as fractions of the "
                    "frame, 0 to 1."
                )

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        judgment: Judgment,
        *,
        model_sha256: str,
        correct_label: str | None = None,
        box: Box | None = None,
    ) -> Self:
        """Create feedback on a prediction, with the current time.

        Raises:
            UsageError: see the class, or the samples have no boxes, or the prediction is a value.
        """
        if not prediction.input.has_boxes and (box is not None or judgment == "wrong_region"):
            raise UsageError(f"Boxes mark objects in images, but the model takes {prediction.input.kind}. Send no box.")
        correct_label = None if correct_label is None else correct_label.strip()
        if prediction.share is None:  # a value, not a label
            correct_label = _checked_value(judgment, correct_label)
        return cls(
            judgment=judgment,
            content=prediction.input.encode_sample(prediction.sample),
            suffix=prediction.input.sample_suffix,
            kind=prediction.input.kind,
            saliency_map=prediction.saliency_map,
            label=prediction.label,
            score=None if prediction.share is None else prediction.score,
            explained=prediction.explained,
            frame_name=" ".join(filter(None, (prediction.frame.name, prediction.region_name))),
            model_sha256=model_sha256,
            at=datetime.now(UTC),
            correct_label=correct_label,
            box=box,
        )

    @property
    def true_label(self) -> str | None:
        """True label according to the feedback; None if the prediction is only marked as wrong or unknown."""
        return {"correct": self.label, "wrong_region": self.label, "relabeled": self.correct_label}.get(self.judgment)


def _checked_value(judgment: Judgment, correct_label: str | None) -> str | None:
    """Return the right value of a regression as a plain number; None if the predicted one is only rejected.

    Raises:
        UsageError: the predicted value is confirmed, or the text is not a number that training reads.
    """
    if judgment in ("correct", "wrong_region"):
        raise UsageError("A predicted value is not a label. Send the measured value with the judgment `relabeled`.")
    if correct_label is None:
        return None
    try:
        number = float(correct_label)
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST:  # also for NaN
        raise UsageError(
            f"{correct_label[:40]!r} is not a measured value. Expected a number such as 12.5, at most {LARGEST:g}."
        )
    return f"{number:.12g}"


def _is_text(value: str) -> bool:
    """Return True if a string can be encoded. JSON may contain lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def pack_map(saliency_map: Floats) -> bytes:
    """Encode a map as little-endian half-precision bytes, row by row. Values out of range are clipped."""
    most = float(np.finfo(np.float16).max)
    return np.clip(saliency_map, -most, most).astype("<f2").tobytes()


def unpack_map(content: bytes, height: int, width: int) -> Floats:
    """Decode a map encoded by `pack_map`."""
    return np.frombuffer(content, dtype="<f2").reshape(height, width).astype(np.float32)

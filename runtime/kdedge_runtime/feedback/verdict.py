"""One person's word on one answer."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self, TypeAlias, get_args

import numpy as np

from kdedge_runtime.drawing.heatmap import Box
from kdedge_runtime.errors import UsageError
from kdedge_runtime.prediction import Answer
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.images import jpeg

__all__ = ["Judgement", "Verdict"]

Judgement: TypeAlias = Literal["right", "wrong", "label", "place"]
"""The answer is right; it is wrong; it is another label; it is right, but the model looked at the wrong place."""
_JPEG_QUALITY = 92
_LONGEST_LABEL = 200


@dataclass(frozen=True)
class Verdict:
    """What was judged, and how.

    Raises:
        UsageError: the judgement is unknown, a label is missing, superfluous or too long, or the box is not one.
    """

    judgement: Judgement
    frame_jpeg: bytes
    """The whole frame, without any heat on it."""
    saliency_map: Floats | None
    """`[h, w]`, raw and signed; None when the model gives no map. The store keeps half precision."""
    label: str
    """The model's answer."""
    probability: float
    """Of `label`, in [0, 1]."""
    explained: str
    """The label that the map speaks about."""
    frame_name: str
    model_sha256: str
    """Of the model file."""
    at: datetime
    """When the person judged, with its time zone."""
    correct_label: str | None = None
    """What it really is; for the judgement `label`, and for no other."""
    box: Box | None = None
    """Where the thing is: left, top, right, bottom as fractions of the frame, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.judgement not in get_args(Judgement):
            raise UsageError(f"{self.judgement!r} is no judgement. Expected one of {', '.join(get_args(Judgement))}.")
        if (self.judgement == "label") != (self.correct_label is not None):
            raise UsageError("The judgement `label` says what it really is, and no other one does.")
        if self.correct_label is not None and not 0 < len(self.correct_label.strip()) <= _LONGEST_LABEL:
            raise UsageError(f"The right label has to have 1 to {_LONGEST_LABEL} characters.")
        if not _is_text(self.correct_label or ""):
            raise UsageError("The right label holds half a character. Type it again.")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):  # also refuses what is not a number
                raise UsageError(
                    f"{self.box} is no box. Expected left < right and top < bottom as fractions of the frame, 0 to 1."
                )

    @classmethod
    def of(
        cls,
        answer: Answer,
        judgement: Judgement,
        *,
        model_sha256: str,
        correct_label: str | None = None,
        box: Box | None = None,
    ) -> Self:
        """A verdict on an answer of a run, given now.

        Raises:
            UsageError: see the class.
        """
        return cls(
            judgement=judgement,
            frame_jpeg=jpeg(answer.frame.rgb, _JPEG_QUALITY),
            saliency_map=answer.saliency_map,
            label=answer.label,
            probability=answer.probability,
            explained=answer.explained,
            frame_name=answer.frame.name,
            model_sha256=model_sha256,
            at=datetime.now(UTC),
            correct_label=correct_label.strip() if correct_label is not None else None,
            box=box,
        )

    @property
    def true_label(self) -> str | None:
        """What it is, as far as the verdict tells: nothing where it only says that the answer is wrong."""
        return {"right": self.label, "place": self.label, "label": self.correct_label, "wrong": None}[self.judgement]


def _is_text(value: str) -> bool:
    """Whether it can be stored: JSON may hold half a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def packed(saliency_map: Floats) -> bytes:
    """A map as little-endian half-precision bytes, row by row; values beyond its range become its largest."""
    most = float(np.finfo(np.float16).max)
    return np.clip(saliency_map, -most, most).astype("<f2").tobytes()


def unpacked(content: bytes, height: int, width: int) -> Floats:
    """The map of `packed` bytes."""
    return np.frombuffer(content, dtype="<f2").reshape(height, width).astype(np.float32)

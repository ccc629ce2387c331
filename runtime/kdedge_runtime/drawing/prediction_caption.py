"""Caption of a prediction: its answer, score and details."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdedge_runtime.drawing.caption import Caption

if TYPE_CHECKING:
    from kdedge_runtime.prediction import Prediction

__all__ = ["caption_of"]


def caption_of(prediction: "Prediction", *, moving: bool = False, details: Sequence[str] | None = None) -> Caption:
    """Return the caption of a prediction.

    Args:
        prediction: prediction for a frame or a region.
        moving: True to add the frame age, which the regions of a frame would repeat.
        details: further lines, which name the explained class; None names it if it is not the label.
    """
    lines = [prediction.nearest_text] if prediction.unknown else []
    if details is not None:
        lines += details
    elif prediction.saliency_map is not None and prediction.explained != prediction.label:
        lines.append(f"heat: {prediction.explained}")
    label = prediction.answer
    if prediction.region is not None:
        label = f"{prediction.region.name}: {label}"
    elif moving:
        lines.append(f"{prediction.age_ms:.0f} ms old")
    # The score belongs to the nearest class, which is not the answer to an unknown sample.
    score, share = ("", None) if prediction.unknown else (prediction.score_text, prediction.share)
    return Caption(label, score, share, tuple(lines))

"""One frame, one forward pass: the answer, the reason and how old they are."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kdedge_runtime.drawing.heatmap import UNMEASURED, HeatStats, MapDisplay, heat_stats
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.model import Explanation, Model
from kdedge_runtime.preprocess import visible_box
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.schedule import Reason
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["Answer", "read_answer"]

_RANKED = 3


@dataclass(frozen=True)
class Answer:
    """What the model says of one frame."""

    frame: Frame
    ranking: tuple[tuple[str, float], ...]
    """The three most probable labels with their probabilities, best first (fewer if the model has fewer)."""
    explained: str
    """The label that a map speaks about: the best one, unless another was asked for."""
    saliency_map: Floats | None
    """`[h, w]`, raw and signed; None when the model gives no map or the frame was not explained."""
    heat: HeatStats | None
    """None when there is no map."""
    age_ms: float
    """From the capture of the frame to its answer."""
    left_out: Reason | None = None
    """Why the frame was not explained; None when it was, or when nothing here explains."""
    display: MapDisplay = UNMEASURED
    """Place and strength of the map on the frame."""
    overlay: Pixels | None = None
    """The frame with its heat and caption, uint8 RGB; None where nobody looks at it."""

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.ranking[0][0]

    @property
    def probability(self) -> float:
        """Of the most probable label, in [0, 1]."""
        return self.ranking[0][1]


def read_answer(
    model: Model, frame: Frame, explanation: Explanation, clock: Callable[[], float] = time.monotonic
) -> Answer:
    """Read what a model said of a batch of one.

    Raises:
        ModelFileError: the model's outputs are not finite numbers.
    """
    probabilities = explanation.probabilities[0]
    saliency_map = explanation.saliency_map[0] if explanation.saliency_map is not None else None
    if not np.isfinite(probabilities).all() or (saliency_map is not None and not np.isfinite(saliency_map).all()):
        raise ModelFileError(
            f"{model.path} gave values that are not finite for {frame.name}: the model is broken, or overflows in "
            "its number format. Expected finite logits and map; export it again and run `kdedge validate`."
        )
    labels = model.metadata.labels
    best = np.argsort(-probabilities, kind="stable")[:_RANKED]
    height, width = frame.rgb.shape[:2]
    heat = None
    if saliency_map is not None:
        box = visible_box(height, width, model.metadata.input)
        heat = heat_stats(saliency_map, box, height, width, explanation.display.shift)
    return Answer(
        frame=frame,
        ranking=tuple((labels[index], float(probabilities[index])) for index in best),
        explained=labels[int(explanation.explained_class[0])],
        saliency_map=saliency_map,
        heat=heat,
        display=explanation.display,
        age_ms=(clock() - frame.captured_at) * 1e3,
    )

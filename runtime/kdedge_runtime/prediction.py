"""Prediction for one frame: top labels, saliency map and latency."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdedge_runtime.drawing.heatmap import OPACITY, UNMEASURED, HeatStats, MapDisplay
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.familiarity import UNKNOWN
from kdedge_runtime.modalities import InputSpec, Region, Sample
from kdedge_runtime.model import Explanation, Model
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.schedule import Reason
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["Prediction", "decode_prediction", "sum_of_others"]


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Prediction of a model for one frame."""

    frame: Frame
    ranking: tuple[tuple[str, float], ...]
    """Labels to display with their scores, best first; for classification the three most probable classes."""
    explained: str
    """Label explained by the saliency map: the top-1 label unless another class was requested."""
    saliency_map: Floats | None
    """Raw signed map `[h, w]`, or None if the model has no map or the frame was not explained."""
    heat: HeatStats | None
    """Statistics of the map, or None if there is no map."""
    task: str
    """Task of the model, a key of `kdedge_runtime.tasks.TASKS`."""
    input: InputSpec
    """Input of the model, which draws the frame."""
    age_ms: float
    """Time from frame capture to prediction, in milliseconds."""
    skip_reason: Reason | None = None
    """Reason why the frame was not explained. None if it was explained or no explainer is available."""
    display: MapDisplay = UNMEASURED
    """Position and contrast of the map on the frame."""
    overlay: Pixels | None = None
    """Frame with heat map and caption, uint8 RGB, or None if no sink needs it."""
    familiarity: float | None = None
    """Similarity to the training samples, larger for more familiar ones; None if the model does not have it."""
    unknown: bool = False
    """True if the familiarity lies below the threshold of the model; the first label is then the nearest class."""
    region: Region | None = None
    """Region of the frame that was predicted; None for the whole frame."""
    embedding: Floats | None = None
    """L2-normalized embedding `[D]`; None if the model does not have it."""
    event: bool | None = None
    """True for the first of the predictions of a label within the refractory time; None without one."""
    output: float | None = None
    """Output for the explained label: its logit, or the value of a regression; None if unknown.

    Contributions of a complete method, such as DeepLIFT, add up to its difference from the output for the reference.
    """
    further: tuple["Prediction", ...] = ()
    """Predictions for the further regions of the frame; see `by_region`."""

    def __repr__(self) -> str:
        """Return the answer and the size of the map, without arrays."""
        size = "no map" if self.saliency_map is None else f"map {self.saliency_map.shape}"
        return f"Prediction({self.answer!r}, {self.score_text}, {size})"

    @property
    def by_region(self) -> tuple["Prediction", ...]:
        """Predictions for all regions of the frame in their order; only this one for a run without regions."""
        return (self, *self.further)

    def of_region(self, name: str | None) -> "Prediction":
        """Return the prediction for a region of the frame, or for the first one if the name is None.

        Raises:
            UsageError: there is no such region.
        """
        for each in self.by_region:
            if name in (None, each.region_name):
                return each
        names = [each.region_name for each in self.by_region if each.region_name is not None]
        expected = f"Expected {' or '.join(names)}" if names else "This run has no regions: remove the region"
        raise UsageError(f"There is no region {name!r}. {expected}.")

    @property
    def frame_skip_reason(self) -> Reason | None:
        """Reason why no region of the frame was explained; None if at least one was."""
        return None if any(each.skip_reason is None for each in self.by_region) else self.skip_reason

    @property
    def region_name(self) -> str | None:
        """Name of the region; None for the whole frame."""
        return None if self.region is None else self.region.name

    @property
    def sample(self) -> Sample:
        """Raw sample that was predicted: the frame, or its region."""
        return self.frame.sample if self.region is None else self.region.cut(self.frame.sample)

    @property
    def label(self) -> str:
        """First label of the ranking."""
        return self.ranking[0][0]

    @property
    def answer(self) -> str:
        """First label of the ranking, or `unknown`."""
        return UNKNOWN if self.unknown else self.label

    @property
    def score(self) -> float:
        """Score of the first label; its probability in [0, 1], or its similarity in [-1, 1]."""
        return self.ranking[0][1]

    @property
    def image(self) -> Pixels:
        """Frame or region without its map, uint8 RGB."""
        return self.input.draw_sample(self.sample)

    def draw(self, opacity: float = OPACITY, *, caption: bool = True) -> Pixels:
        """Draw the sample with its map, uint8 RGB: an image or a sound next to its overlay, a series or a row alone.

        Args:
            opacity: opacity of the map at full heat, in [0, 1].
            caption: True adds the answer, its score and the explained class below the drawing.

        Raises:
            UsageError: the opacity is out of range.
        """
        if not 0 <= opacity <= 1:
            raise UsageError(f"The opacity {opacity} is out of range. Expected 0 to 1.")
        drawn = self.input.draw_explanation(self, opacity)
        if not caption:
            return drawn
        # Imported on demand, because runs without drawings need no fonts.
        from PIL import Image

        from kdedge_runtime.drawing.caption import append_caption
        from kdedge_runtime.drawing.prediction_caption import caption_of

        return np.asarray(append_caption(Image.fromarray(drawn), caption_of(self)))

    def reasons(self, count: int = 5) -> list[dict[str, Any]]:
        """Return the columns of a row with the largest contributions to the explained output.

        Args:
            count: maximum number of columns.

        Raises:
            UsageError: the number is below 1.

        Returns:
            JSON values with `column`, `value`, `unit` if there is one, and `contribution`; largest magnitude first.
            Empty for other samples, and without a map.
        """
        if count < 1:
            raise UsageError(f"A number of {count} columns is not supported. Expected at least 1.")
        if self.saliency_map is None:
            return []
        return self.input.reasons(self.sample, self.saliency_map, count)

    def other_contributions(self, count: int = 5) -> float | None:
        """Return the sum of the contributions that `reasons(count)` leaves out; None if there are no reasons.

        With it, reasons are complete: together they are the difference of `output` from that of the average row, if the
        method is complete.

        Args:
            count: maximum number of columns in the reasons.

        Raises:
            UsageError: the number is below 1.
        """
        reasons = self.reasons(count)
        if self.saliency_map is None or not reasons:
            return None
        return sum_of_others(self.saliency_map, reasons)

    @property
    def unseen(self) -> dict[str, str]:
        """Categories of a row that the model does not have, by column, which count as missing; empty without any."""
        return self.input.unseen(self.sample)

    @property
    def score_text(self) -> str:
        """Score of the first label for captions, such as `93%`."""
        return TASKS[self.task].format_score(self.score)

    @property
    def score_key(self) -> str:
        """Key of scores in JSON records: `p` for probabilities, else the name of the score, such as `similarity`."""
        name = TASKS[self.task].score_name
        return "p" if name == "probability" else name

    @property
    def nearest_text(self) -> str:
        """First label with its score for captions of unknown samples, such as `nearest: cat 93%`."""
        return f"nearest: {self.label} {self.score_text}"

    @property
    def share(self) -> float | None:
        """Score of the first label as a fraction of its range, in [0, 1]; None for an unbounded score."""
        return TASKS[self.task].share(self.score)


def sum_of_others(saliency_map: Floats, reasons: Sequence[Mapping[str, Any]]) -> float:
    """Return the sum of the contributions in a map that are not among the reasons, rounded to five digits.

    Args:
        saliency_map: raw signed map `[h, w]`.
        reasons: columns with their `contribution`, from `Prediction.reasons`.
    """
    named: float = sum(reason["contribution"] for reason in reasons)
    return round(float(saliency_map.sum(dtype=np.float64)) - named, 5)


def decode_prediction(
    model: Model,
    frame: Frame,
    explanation: Explanation,
    clock: Callable[[], float] = time.monotonic,
    region: Region | None = None,
) -> Prediction:
    """Convert the model outputs for a batch of one into a `Prediction`.

    Args:
        model: the model.
        frame: frame that was predicted.
        explanation: outputs for the frame or its region.
        clock: monotonic clock in seconds.
        region: region of the frame; None for the whole frame.

    Raises:
        ModelFileError: an output of the model is not finite.
    """
    scores = explanation.scores[0]
    saliency_map = explanation.saliency_map[0] if explanation.saliency_map is not None else None
    familiarity = None if explanation.familiarity is None else float(explanation.familiarity[0])
    embedding = None if explanation.embedding is None else explanation.embedding[0]
    outputs = (scores, *(each for each in (saliency_map, familiarity, embedding) if each is not None))
    if not all(np.isfinite(each).all() for each in outputs):
        raise ModelFileError(
            f"{model.path} returned non-finite values for {frame.name}: the model is damaged or its number format "
            "overflows. Expected finite outputs. Export it again and run `kdedge validate`."
        )
    labels = model.metadata.labels
    heat = None
    if saliency_map is not None:
        sample = frame.sample if region is None else region.cut(frame.sample)
        heat = model.metadata.input.map_stats(saliency_map, sample, explanation.display.shift)
    return Prediction(
        frame=frame,
        ranking=TASKS[model.metadata.task].ranking(scores, labels),
        task=model.metadata.task,
        input=model.metadata.input,
        explained=labels[int(explanation.explained_class[0])],
        saliency_map=saliency_map,
        heat=heat,
        display=explanation.display,
        age_ms=(clock() - frame.captured_at) * 1e3,
        familiarity=familiarity,
        unknown=explanation.unknown is not None and bool(explanation.unknown[0]),
        region=region,
        embedding=embedding,
        output=float(explanation.logits[0, int(explanation.explained_class[0])]),
    )

"""Registry of black-box explainers, and their factory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from kdedge_runtime.errors import UsageError
from kdedge_runtime.explainers.estimate import Explainer, MapEstimate
from kdedge_runtime.explainers.kernel_shap import kernel_shap
from kdedge_runtime.explainers.lime import lime
from kdedge_runtime.explainers.masked_scorer import MaskedScorer
from kdedge_runtime.explainers.occlusion import occlusion
from kdedge_runtime.explainers.rise import rise
from kdedge_runtime.explainers.score_cam import score_cam
from kdedge_runtime.explainers.target_activations import Activations, target_activations
from kdedge_runtime.modalities import Sample
from kdedge_runtime.model import Model
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["EXPLAINERS", "SEGMENTS", "BlackBoxMethod", "make_explainer", "methods_for"]

SEGMENTS = 40
"""Default number of segments for LIME and KernelSHAP."""
_MAX_SEGMENTS = 200


@dataclass(frozen=True)
class BlackBoxMethod:
    """Function of a black-box method, and its inputs."""

    compute: Callable[..., MapEstimate]
    """Function from a `MaskedScorer`, followed by what `takes` names, to a map."""
    takes: Literal["segments", "activations"] | None = None
    """Second argument: segments of the sample, int64 `[H, W]`, or activations of the target layer, `[C, h, w]`."""
    of_logit: bool = False
    """True if the score is the class logit; False for the task's score, such as a probability."""


EXPLAINERS: Mapping[str, BlackBoxMethod] = {
    "occlusion": BlackBoxMethod(occlusion),
    "rise": BlackBoxMethod(rise),
    "lime": BlackBoxMethod(lime, "segments"),
    "shap": BlackBoxMethod(kernel_shap, "segments"),
    "scorecam": BlackBoxMethod(score_cam, "activations", of_logit=True),
}
"""Black-box methods by name."""


def methods_for(model: Model) -> tuple[str, ...]:
    """Return the names of the black-box methods for a model.

    Activations need a file with a map. The softmax of Score-CAM needs logits of a wide range: it weighs channels nearly
    equally by cosines, so that the map would be almost the same for every class.
    """
    return tuple(
        name
        for name, method in EXPLAINERS.items()
        if (model.has_map or method.takes != "activations") and not (method.of_logit and _has_embedding(model))
    )


def _has_embedding(model: Model) -> bool:
    return TASKS[model.metadata.task].has_embedding


def make_explainer(
    model: Model,
    method: str,
    *,
    budget_ms: float | None = None,
    segments: int | None = None,
    seed: int = 0,
    activations_of: Callable[[Model], Activations] = target_activations,
) -> Explainer:
    """Create a black-box explainer for a model, with or without its own map.

    Args:
        model: the model.
        method: name of a method of `EXPLAINERS`.
        budget_ms: time limit per sample in milliseconds. It may be exceeded by one batch, or by the minimum evaluations
        of the method. None uses the method's default number of evaluations.
        segments: number of segments for LIME and KernelSHAP, 2 to 200; None for 40. KernelSHAP is exact up to 10.
        seed: random seed. The same sample gets the same map, unless a budget stops earlier or later.
        activations_of: function that returns the activations for Score-CAM.

    Raises:
        UsageError: the method does not exist, has no segments or does not fit the task, or the model file lacks
        what it needs.
    """
    chosen = EXPLAINERS.get(method)
    if chosen is None:
        raise UsageError(f"The method {method!r} does not exist. Expected one of {', '.join(EXPLAINERS)}.")
    if segments is not None and chosen.takes != "segments":
        segmented = " or ".join(name for name, other in EXPLAINERS.items() if other.takes == "segments")
        raise UsageError(f"The method {method} has no segments. Use {segmented}, or remove --segments.")
    if segments is not None and not 2 <= segments <= _MAX_SEGMENTS:
        raise UsageError(f"{segments} segments are not supported. Expected 2 to {_MAX_SEGMENTS}.")
    if budget_ms is not None and not budget_ms > 0:
        raise UsageError(f"A budget of {budget_ms:g} ms is not supported. Expected more than 0.")
    if chosen.of_logit and _has_embedding(model):
        raise UsageError(
            f"The method {method} weighs channels by the softmax of logits, but those of {model.path.name} are "
            "similarities in a small range: its map would hardly depend on the class. Use "
            f"{', '.join(methods_for(model))}."
        )
    activations = activations_of(model) if chosen.takes == "activations" else None
    spec = model.metadata.input

    def explain(sample: Sample, class_index: int, progress: ProgressCallback = no_progress) -> MapEstimate:
        score = _Score(model, class_index, of_logit=chosen.of_logit)
        scorer = MaskedScorer(score, sample, spec, budget_ms=budget_ms, seed=seed, progress=progress)
        if chosen.takes == "segments":
            return chosen.compute(scorer, spec.segments(sample, segments or SEGMENTS))
        if activations is not None:
            return chosen.compute(scorer, activations(sample))
        return chosen.compute(scorer)

    return explain


class _Score:
    """Score or logit of a class."""

    def __init__(self, model: Model, class_index: int, *, of_logit: bool) -> None:
        self._model = model
        self._class_index = class_index
        self._of_logit = of_logit

    def __call__(self, samples: Sample) -> Floats:
        explanation = self._model.predict(samples)
        given = explanation.logits if self._of_logit else explanation.scores
        return given[:, self._class_index]

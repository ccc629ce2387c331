"""Factory of black-box explainers."""

from collections.abc import Callable

import numpy as np

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
from kdedge_runtime.saliency_methods import methods_of
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["PARTS", "make_explainer"]

PARTS = 40
"""Default number of superpixels for LIME and KernelSHAP."""
_MOST_PARTS = 200
_OF_PARTS = {"lime": lime, "shap": kernel_shap}


def make_explainer(
    model: Model,
    method: str,
    *,
    budget_ms: float | None = None,
    parts: int | None = None,
    seed: int = 0,
    activations_of: Callable[[Model], Activations] = target_activations,
) -> Explainer:
    """Create a black-box explainer for a model, with or without its own map.

    Args:
        model: the model.
        method: perturbation method, see `kdedge_runtime.saliency_methods`.
        budget_ms: time limit per image in milliseconds. It may be exceeded by one batch, or by the minimum evaluations
        of the method. None uses the method's default number of evaluations.
        parts: number of superpixels for LIME and KernelSHAP, 2 to 200; None for 40. KernelSHAP is exact up to 10.
        seed: random seed. The same image gets the same map, unless a budget stops earlier or later.
        activations_of: function that returns the activations for Score-CAM.

    Raises:
        UsageError: the method does not exist or has no superpixels, or the model file lacks what it needs.
    """
    if method not in methods_of("perturbation"):
        expected = ", ".join(methods_of("perturbation"))
        raise UsageError(f"The method {method!r} does not exist. Expected one of {expected}.")
    if parts is not None and method not in _OF_PARTS:
        raise UsageError(f"The method {method} has no superpixels. Use lime or shap, or omit the number of parts.")
    if parts is not None and not 2 <= parts <= _MOST_PARTS:
        raise UsageError(f"{parts} superpixels are not supported. Expected 2 to {_MOST_PARTS}.")
    if budget_ms is not None and not budget_ms > 0:
        raise UsageError(f"A budget of {budget_ms:g} ms is not supported. Expected more than 0.")
    activations = activations_of(model) if method == "scorecam" else None
    spec = model.metadata.input

    def explain(sample: Sample, class_index: int, progress: ProgressCallback = no_progress) -> MapEstimate:
        scorer = MaskedScorer(
            _Score(model, class_index, of_logit=method == "scorecam"),
            sample,
            spec,
            budget_ms=budget_ms,
            seed=seed,
            progress=progress,
        )
        if method == "occlusion":
            return occlusion(scorer)
        if method == "rise":
            return rise(scorer)
        if activations is not None:
            return score_cam(scorer, activations(sample))
        return _OF_PARTS[method](scorer, spec.segments(sample, parts or PARTS))

    return explain


class _Score:
    """Score or logit of a class."""

    def __init__(self, model: Model, class_index: int, *, of_logit: bool) -> None:
        self._model = model
        self._class_index = class_index
        self._of_logit = of_logit
        (batch, *_) = next(item for item in model.session.get_inputs() if item.name == model.metadata.input.name).shape
        self._one_by_one = batch == 1

    def __call__(self, samples: Sample) -> Floats:
        batches = samples[:, None] if self._one_by_one else [samples]
        predictions = [self._model.predict(batch) for batch in batches]
        given = [prediction.logits if self._of_logit else prediction.scores for prediction in predictions]
        scores: Floats = np.concatenate(given)[:, self._class_index]
        return scores

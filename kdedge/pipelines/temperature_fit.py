"""Temperature scaling: fitted on one half of the validation split, evaluated on the other.

A temperature must not be evaluated on the samples it was fitted on. A hash of each sample's name assigns it to a half,
on every machine, so `kdedge validate` can reproduce the split. Both halves selected the best epoch. A model is
therefore slightly more confident of correct predictions there than on new samples.
"""

from dataclasses import dataclass

import numpy as np

from kdedge.data import DatasetIndex, Split, decode, index_dataset
from kdedge.data.left_out import leave_out
from kdedge.data.splits import hash_split
from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.origins import as_model_classes
from kdedge_export.metrics.calibration import HIGHEST, LOWEST, fit_temperature
from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_runtime import Model
from kdedge_runtime.errors import KdedgeError

__all__ = ["TemperatureFit", "fit_run", "fitting_half"]

MIN_SAMPLES, MAX_SAMPLES = 30, 2000
"""Below the minimum the temperature stays at 1; more samples than the maximum change it little."""
_SEED = 1
"""Differs from the seed of the train/val split, whose ranks are all low on the validation split."""


@dataclass(frozen=True)
class TemperatureFit:
    """Result of fitting a temperature."""

    temperature: float
    """Fitted temperature; 1.0 if none could be fitted."""
    samples: int
    """Number of samples it was fitted on."""
    why_not: str | None = None
    """Reason for leaving the temperature at 1, or None."""


def fitting_half(side: Split) -> Split:
    """Return the half of the validation split used for temperature scaling."""
    return hash_split(side, val_fraction=0.5, seed=_SEED)[1]


def fit_run(artifacts: Artifacts, model: Model) -> TemperatureFit | None:
    """Fit the temperature of a run's exported model; None for a model without a run, which has no known samples.

    Args:
        artifacts: exported run or model name.
        model: fp32 model file at temperature 1.
    """
    if artifacts.record is None:
        return None
    if not EXPORT_TASKS[model.metadata.task].has_probabilities:
        return TemperatureFit(1.0, 0, f"the task {model.metadata.task} has no class probabilities")
    try:
        root = artifacts.record.data["source"]
        dataset = index_dataset(root, artifacts.options_for(root), unlabeled_ok=True)
        if dataset.is_unlabeled:
            return TemperatureFit(1.0, 0, "its samples have no labels")
        dataset = leave_out(dataset, artifacts.left_out)
        return _fit(dataset, model)
    except KdedgeError as error:  # an export does not require the samples
        return TemperatureFit(1.0, 0, f"its samples cannot be read: {error}")


def _fit(dataset: DatasetIndex, model: Model) -> TemperatureFit:
    half = fitting_half(dataset.val)
    decoded = decode(half.thinned(MAX_SAMPLES), model.metadata.input)
    if len(decoded) < MIN_SAMPLES:
        return TemperatureFit(1.0, 0, f"{len(decoded)} samples are too few, {MIN_SAMPLES} are needed")
    targets = as_model_classes(decoded.targets, dataset.labels, model.metadata.labels, dataset.source)
    logits = predict(model, decoded.samples).logits
    temperature = fit_temperature(logits, np.asarray(targets))
    why_not = _why_none(temperature, int((logits.argmax(axis=1) != targets).sum()), len(decoded))
    return TemperatureFit(temperature, len(decoded)) if why_not is None else TemperatureFit(1.0, 0, why_not)


def _why_none(temperature: float, wrong: int, samples: int) -> str | None:
    """Explain a temperature at an end of its range, which is not a valid fit; None for a valid one."""
    if temperature == LOWEST:
        if not wrong:
            return f"all {samples} predictions are correct, so the optimum is unbounded"
        return f"the optimum is below {LOWEST:g}, since the logits of {samples} samples hardly differ"
    if temperature == HIGHEST:
        return (
            f"{wrong} of {samples} predictions are wrong and ground-truth classes score no higher than others, so no "
            "temperature fits"
        )
    return None

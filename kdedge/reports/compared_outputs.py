"""Predictions in a comparison as the task defines them: classes, or values."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdedge.pipelines.disagreement import differing_classes, differing_values
from kdedge.pipelines.run_predictions import EvaluatedSamples, RunPredictions
from kdedge.tasks import TRAINING_TASKS
from kdedge_export.html.text import plain_number, signed_number
from kdedge_export.metrics import agreement
from kdedge_export.metrics.scores import Scores
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Integers

__all__ = ["ComparedOutputs", "PredictionText", "outputs_of"]

_UNSCALED = 1.0
"""Temperature of probabilities, since runs are not calibrated."""


class PredictionText(NamedTuple):
    """Prediction of one model for one sample, as text."""

    text: str | None
    """Label, or value with its unit; None without a prediction."""
    detail: str
    """Score of a label, or signed error of a value; empty without a prediction."""
    is_wrong: bool
    """True for another class than the ground truth; False for a value, which is never exact."""


class ComparedOutputs(ABC):
    """Comparison of predictions of one form."""

    @abstractmethod
    def differences(self, models: Sequence[RunPredictions]) -> Scores:
        """Return the difference of the predictions of two or more models on each sample, `[N]`, at least 0."""

    @abstractmethod
    def strata(self, samples: EvaluatedSamples) -> Integers:
        """Return the groups of samples, int64 `[N]`, over which those with the largest differences are spread."""

    @abstractmethod
    def target(self, samples: EvaluatedSamples, row: int) -> str:
        """Format the ground truth of a sample."""

    @abstractmethod
    def prediction(self, model: RunPredictions, row: int) -> PredictionText:
        """Format the prediction for a sample."""


def outputs_of(task: str) -> ComparedOutputs:
    """Return the comparison of a task's predictions; see `PredictionQueries.evaluate` for the tasks that have one."""
    return _Values() if TASKS[task].has_values else _Classes()


class _Classes(ComparedOutputs):
    """Top-1 classes, which may be in another order in each model."""

    def differences(self, models: Sequence[RunPredictions]) -> Scores:
        found = [agreement.top1(one.predictions.logits) for one in models]
        if len({one.labels for one in models}) == 1:  # two classes may have the same name
            return differing_classes(found)
        labels = dict.fromkeys(label for one in models for label in one.labels)
        numbers = {label: number for number, label in enumerate(labels)}
        # The last entry is that of the index -1.
        return differing_classes(
            [
                np.array([*(numbers[label] for label in one.labels), -1])[classes]
                for one, classes in zip(models, found, strict=True)
            ]
        )

    def strata(self, samples: EvaluatedSamples) -> Integers:
        classes: Integers = samples.targets
        return classes

    def target(self, samples: EvaluatedSamples, row: int) -> str:
        return samples.labels[int(samples.targets[row])]

    def prediction(self, model: RunPredictions, row: int) -> PredictionText:
        task, logits = TASKS[model.task], model.predictions.logits[row : row + 1]
        predicted = int(agreement.top1(logits)[0])
        is_wrong = bool(predicted != model.right[row])
        if predicted < 0:
            return PredictionText(None, "", is_wrong)
        score = float(task.scores(logits, _UNSCALED)[0, predicted])
        return PredictionText(model.labels[predicted], task.format_score(score), is_wrong)


class _Values(ComparedOutputs):
    """Values in the unit of the target."""

    def differences(self, models: Sequence[RunPredictions]) -> Scores:
        return differing_values([one.predictions.logits[:, 0] for one in models], models[0].samples.targets)

    def strata(self, samples: EvaluatedSamples) -> Integers:
        return np.zeros(len(samples.names), dtype=np.int64)

    def target(self, samples: EvaluatedSamples, row: int) -> str:
        return plain_number(float(samples.targets[row]), TRAINING_TASKS[samples.task].unit(samples.labels))

    def prediction(self, model: RunPredictions, row: int) -> PredictionText:
        value = float(model.predictions.logits[row, 0])
        if not np.isfinite(value):
            return PredictionText(None, "", is_wrong=False)
        error = value - float(model.samples.targets[row])
        return PredictionText(
            plain_number(value, TRAINING_TASKS[model.task].unit(model.labels)), signed_number(error), is_wrong=False
        )

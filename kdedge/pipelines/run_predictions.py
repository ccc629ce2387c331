"""Predictions and maps of runs and their teachers on the validation samples."""

from dataclasses import dataclass, field

import numpy as np

from kdedge.data import index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.left_out import leave_out
from kdedge.data.readers.reader_choice import require_kind
from kdedge.models.artifacts import Artifacts
from kdedge.models.trained_model import TrainedModel
from kdedge.models.trees.ensemble import TreeEnsemble
from kdedge.models.trees.tree_module import TreeModule
from kdedge.pipelines.origins import as_model_classes
from kdedge.pipelines.run_history import RunHistory
from kdedge.pipelines.validation_samples import read_validation_split
from kdedge_export.errors import HeadNotSupported
from kdedge_export.metrics.torch_predictions import Predictions, predict
from kdedge_export.torch_export.wrappers import ClassifierOnly, ExportableModel, wrap_for_export
from kdedge_runtime import Model
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Integers, Pixels, Targets
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["RunPredictions", "EvaluatedSamples", "PredictionQueries"]


@dataclass(frozen=True)
class EvaluatedSamples:
    """Validation samples of a dataset at a model's input size."""

    source: str
    labels: tuple[str, ...]
    fingerprint: str
    samples: Pixels
    """Preprocessed samples `[N, …]`."""
    targets: Targets
    """Ground truth `[N]`: int64 indices into the labels, or float32 values."""
    names: tuple[str, ...]
    """Name of each sample, unique in the dataset."""
    input: InputSpec
    """Input of the model, which the samples are preprocessed for."""
    task: str
    """Task of the ground truth, a key of `kdedge_runtime.tasks.TASKS`."""
    part: str | None = None
    """Description of the subset if not all samples are used, or None."""

    @property
    def ground_truth(self) -> tuple[str | float, ...]:
        """Label or value of each sample, `[N]`, which does not depend on the order of the classes."""
        if TASKS[self.task].has_values:
            return tuple(self.targets.tolist())
        return tuple(self.labels[target] for target in self.targets)


@dataclass(frozen=True)
class RunPredictions:
    """Predictions of a model, with maps for the ground-truth class or the value of each sample."""

    title: str
    """Name of the run or teacher."""
    samples: EvaluatedSamples
    labels: tuple[str, ...]
    """Labels of the model."""
    task: str
    """Task of the model, a key of `kdedge_runtime.tasks.TASKS`."""
    predictions: Predictions

    @property
    def right(self) -> Integers:
        """Ground-truth classes, int64 `[N]`, as indices into the model's labels; only for a task with classes."""
        return _right(self.samples, self.labels)


@dataclass
class PredictionQueries:
    """Evaluates models on samples; each dataset is read once per input size."""

    data: str | None
    """Samples for all runs; None uses each run's own dataset."""
    models: int
    """Number of models to evaluate, for the progress."""
    progress: ProgressCallback
    _evaluated: int = field(default=0, init=False)
    _read: dict[tuple[str, InputSpec, tuple[str, ...], DatasetOptions], EvaluatedSamples] = field(
        default_factory=dict, init=False
    )

    def evaluate(self, title: str, trained: TrainedModel | TreeEnsemble | Model, run: RunHistory) -> RunPredictions:
        """Predict the validation samples and explain the ground-truth class of each, or the only value.

        Args:
            title: display name of the model.
            trained: model, or a teacher's file. Without a closed-form head there are predictions, but no maps.
            run: run that the model belongs to or has taught; it determines the samples and the class order.

        Raises:
            DataError: the samples are missing, cannot be read, or have classes that the model lacks.
            UsageError: the task of the run has neither one class nor one value for each sample.
        """
        task = TASKS[run.record.task]
        if not (task.has_classes or task.has_values):
            raise UsageError(
                f"kdedge compare cannot compare predictions of the task {run.record.task}. Use kdedge validate."
            )
        spec = trained.metadata.input if isinstance(trained, Model) else trained.input
        samples = self._samples(self.data or run.data, spec, run)
        total = len(samples.names)
        explained = np.zeros(total, dtype=np.int64) if task.has_values else _right(samples, run.record.labels)
        before, all_models = self._evaluated * total, self.models * total
        predictions = predict(
            trained if isinstance(trained, Model) else _module(trained),
            samples.samples,
            explained,
            progress=lambda done: self.progress("evaluating models", before + done, all_models),
        )
        self._evaluated += 1
        return RunPredictions(title, samples, run.record.labels, run.record.task, predictions)

    def _samples(self, source: str, spec: InputSpec, run: RunHistory) -> EvaluatedSamples:
        artifacts = Artifacts(str(run.folder), run.folder, run.record)
        options, left_out = artifacts.options_for(source), artifacts.left_out
        key = source, spec, left_out, options
        if key not in self._read:
            require_kind(source, spec.kind, run.name)
            dataset = leave_out(index_dataset(source, options), left_out)
            decoded, part = read_validation_split(dataset, spec, self.progress)
            if not len(decoded):
                raise DataError(f"{source} has no readable validation samples. Give other samples with --data.")
            self._read[key] = EvaluatedSamples(
                source=dataset.source,
                labels=dataset.labels,
                fingerprint=dataset.fingerprint,
                samples=decoded.samples,
                targets=decoded.targets,
                names=tuple(sample.name for sample in decoded.stored),
                input=spec,
                task=dataset.task,
                part=part,
            )
        return self._read[key]


def _module(trained: TrainedModel | TreeEnsemble) -> ExportableModel | ClassifierOnly | TreeModule:
    if isinstance(trained, TreeEnsemble):
        return TreeModule(trained)
    try:
        return wrap_for_export(trained.model, trained.input)
    except HeadNotSupported:
        return ClassifierOnly(trained.model, trained.input)


def _right(samples: EvaluatedSamples, labels: tuple[str, ...]) -> Integers:
    """Return the ground-truth classes as indices into the model's labels."""
    return as_model_classes(samples.targets, samples.labels, labels, samples.source)

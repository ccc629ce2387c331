"""Predictions and maps of runs and their teachers on the validation images."""

from dataclasses import dataclass, field

from kdedge.data import index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.left_out import leave_out
from kdedge.models.run_folder import RunRecord
from kdedge.models.trained_model import TrainedModel
from kdedge.models.trees.ensemble import TreeEnsemble
from kdedge.models.trees.tree_module import TreeModule
from kdedge.pipelines.origins import as_model_classes
from kdedge.pipelines.run_history import RunHistory
from kdedge.pipelines.validation_images import read_validation_split
from kdedge_export.errors import HeadNotSupported
from kdedge_export.metrics.torch_predictions import Predictions, predict
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.torch_export.wrappers import ClassifierOnly, ExportableModel, wrap_for_export
from kdedge_runtime import Model
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.arrays import Integers, Pixels, Targets
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["RunPredictions", "EvaluatedImages", "PredictionQueries"]


@dataclass(frozen=True)
class EvaluatedImages:
    """Validation images of a dataset at a model's input size."""

    source: str
    labels: tuple[str, ...]
    fingerprint: str
    images: Pixels
    """Images, uint8 RGB `[N, H, W, 3]`."""
    targets: Targets
    """Ground-truth classes, int64 `[N]`, as indices into the labels."""
    names: tuple[str, ...]
    """Name of each image, unique in the dataset."""
    input: InputSpec
    """Input of the model, which the samples are preprocessed for."""
    part: str | None = None
    """Description of the subset if not all images are used, or None."""


@dataclass(frozen=True)
class RunPredictions:
    """Predictions of a model, with maps for the ground-truth class of each image."""

    title: str
    """Name of the run or teacher."""
    images: EvaluatedImages
    labels: tuple[str, ...]
    """Labels of the model."""
    predictions: Predictions

    @property
    def right(self) -> Integers:
        """Ground-truth classes, int64 `[N]`, as indices into the model's labels."""
        return _right(self.images, self.labels)


@dataclass
class PredictionQueries:
    """Evaluates models on images; each dataset is read once per input size."""

    data: str | None
    """Images for all runs; None uses each run's own dataset."""
    models: int
    """Number of models to evaluate, for the progress."""
    progress: ProgressCallback
    _evaluated: int = field(default=0, init=False)
    _read: dict[tuple[str, InputSpec, tuple[str, ...], DatasetOptions], EvaluatedImages] = field(
        default_factory=dict, init=False
    )

    def evaluate(self, title: str, trained: TrainedModel | TreeEnsemble | Model, run: RunHistory) -> RunPredictions:
        """Predict the validation images and explain the ground-truth class of each.

        Args:
            title: display name of the model.
            trained: model, or a teacher's file. Without a closed-form head there are predictions, but no maps.
            run: run that the model belongs to or has taught; it determines the images and the class order.

        Raises:
            DataError: the images are missing, cannot be read, or have classes that the model lacks.
            UsageError: the task of the run has no classes.
        """
        if not EXPORT_TASKS[run.record.task].has_classes:
            raise UsageError(f"Predictions of the task {run.record.task} are compared by kdedge validate.")
        spec = trained.metadata.input if isinstance(trained, Model) else trained.input
        images = self._images(self.data or run.data, spec, run.record)
        right, total = _right(images, run.record.labels), len(images.names)
        before, all_models = self._evaluated * total, self.models * total
        predictions = predict(
            trained if isinstance(trained, Model) else _module(trained),
            images.images,
            right,
            progress=lambda done: self.progress("evaluating models", before + done, all_models),
        )
        self._evaluated += 1
        return RunPredictions(title, images, run.record.labels, predictions)

    def _images(self, source: str, spec: InputSpec, record: RunRecord) -> EvaluatedImages:
        key = source, spec, record.left_out, record.dataset_options
        if key not in self._read:
            collection = leave_out(index_dataset(source, record.dataset_options), record.left_out)
            decoded, part = read_validation_split(collection, spec, self.progress)
            if not len(decoded):
                raise DataError(f"{source} has no readable validation images. Give other images with --data.")
            self._read[key] = EvaluatedImages(
                source=collection.source,
                labels=collection.labels,
                fingerprint=collection.fingerprint,
                images=decoded.samples,
                targets=decoded.targets,
                names=tuple(sample.name for sample in decoded.stored),
                input=spec,
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


def _right(images: EvaluatedImages, labels: tuple[str, ...]) -> Integers:
    """Return the ground-truth classes as indices into the model's labels."""
    return as_model_classes(images.targets, images.labels, labels, images.source)

"""Interface of a modality at training: datasets, networks and augmentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.feedback import write_class_folders

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from kdedge.config.augmentation_settings import Augmentation
    from kdedge.config.train_config import TrainConfig
    from kdedge.data.dataset_index import DatasetIndex
    from kdedge.data.dataset_options import DatasetOptions
    from kdedge.data.grouping import GroupOf
    from kdedge.data.unlabeled import UnlabeledSource
    from kdedge.models.graph_feed import GraphFeed
    from kdedge.models.model_spec import ModelSpec
    from kdedge.models.published_weights import PublishedWeights
    from kdedge.models.run_folder import RunRecord
    from kdedge.models.teacher_source import LoadedTeacher
    from kdedge.tasks.training_task import TrainingTask
    from kdedge.training.run_callback import RunCallback
    from kdedge_export.onnx_graph.graph_index import GraphIndex
    from kdedge_runtime.feedback import FeedbackStore, FeedbackSummary
    from kdedge_runtime.modalities import InputSpec, Sample

__all__ = ["Augmenter", "TrainingModality"]


class Augmenter(Protocol):
    """Augmentation of batches on the training device.

    Parameters are drawn as named tuples of tensors with one row per sample, so that they can be selected, moved and
    divided among processes.
    """

    @property
    def settings(self) -> Augmentation:
        """Settings of the recipe."""

    def draw(self, count: int, generator: torch.Generator) -> Any:
        """Draw the parameters of every sample of a dataset; row i depends only on the generator and i.

        Returns:
            Parameters with methods `to(device)` and `take(index)`, see `AugmentationParams`.
        """

    def apply(self, samples: Tensor, params: Any) -> Tensor:
        """Augment each sample `[n, *shape]` with its row of parameters; the input is not modified."""

    def draw_mixing(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw the mixing parameters of a batch; called only if `settings.mixes`."""

    def blend(self, samples: Tensor, targets: Tensor, mixing: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Mix every sample except the first with its predecessor, `[1 + n, …]` to `[n, …]`, and their targets."""


class TrainingModality(ABC):
    """Modality at training. `spec` is always the modality's own `InputSpec` class."""

    @abstractmethod
    def reads(self, data: str) -> bool:
        """Return True if a dataset location holds samples of this modality."""

    @property
    def dataset_options(self) -> frozenset[str]:
        """Fields of `DatasetOptions` that apply to its datasets; the others are refused. By default `group_by`."""
        return frozenset({"group_by"})

    @abstractmethod
    def index(self, data: str, options: DatasetOptions, *, unlabeled_ok: bool) -> DatasetIndex:
        """Index a dataset without opening samples; see `kdedge.data.index_dataset`.

        `group_by` is applied afterwards, unless the modality divides the samples itself. It does so only where their
        names do not identify them.
        """

    def groups(self, dataset: DatasetIndex, group_by: str) -> GroupOf:
        """Return the function of a sample's name to its group; by default a regular expression, see `group_names`.

        Raises:
            UsageError: the expression is invalid, or there is no such column.
        """
        from kdedge.data.grouping import group_names

        return group_names(group_by, dataset.group_of)

    def describe(self, data: str, options: DatasetOptions) -> list[tuple[str, ...]]:
        """Describe the columns of a dataset: name, kind, unit, values and missing values; empty without columns."""
        return []

    def list_unlabeled(self, location: str, dataset: DatasetIndex, *, every_s: float) -> list[UnlabeledSource]:
        """List unlabeled samples for distillation; an error by default.

        Args:
            location: folder, file or pattern.
            dataset: dataset that they are added to.
            every_s: interval between samples of a recording in seconds.

        Raises:
            UsageError: the modality has no reader of unlabeled samples.
            DataError: the location does not exist, or has no samples.
        """
        raise UsageError(
            f"--unlabeled has no reader for {dataset.modality} samples, so it cannot read {location}. Remove it."
        )

    def write_feedback(
        self, entries: FeedbackStore, output: Path | None, unknown: Path | None, target: str | None
    ) -> FeedbackSummary:
        """Write reviewed samples as training data: class folders by default, see `write_class_folders`.

        Args:
            entries: feedback of a device.
            output: output for labeled samples; None for none.
            unknown: output for samples of none of the classes; None for none.
            target: column for the labels, for rows of tables.

        Raises:
            UsageError: an output exists, or an option does not apply.
            DataError: there is nothing to write to an output.
        """
        if target is not None:
            raise UsageError(
                f"--target is for rows of a table, but the feedback has {entries.kind} samples. Remove it."
            )
        return write_class_folders(entries, output, unknown)

    def perceptual_hash(self, sample: Sample) -> int | None:
        """Compute a hash of 64 bits that similar samples share, up to a few bits; None without one, the default."""
        return None

    def default_recipe(self, kind: str) -> str | None:
        """Return the recipe of random weights for a command; None for those of images, the default."""
        return None

    @property
    def flips(self) -> bool:
        """True if mirrored samples keep their class, so that `flip` of a recipe applies; as for images by default."""
        return True

    def merit(self, task: TrainingTask) -> Callable[[Mapping[str, float]], tuple[float, ...]]:
        """Return the function of the sort key of an epoch; that of the task by default (`TrainingTask.merit`)."""
        return task.merit

    def write_companions(self, dataset: DatasetIndex, spec: InputSpec, folder: Path) -> None:
        """Write files about the data and the input of the model next to `run.json`; none by default."""
        return

    def options_of_run(self, options: DatasetOptions, folder: Path, data: str) -> DatasetOptions:
        """Return the options with which the later steps of a run read data; those of the training by default.

        Args:
            options: options of the training.
            folder: run folder.
            data: location that is read with them.
        """
        return options

    def check_model(self, name: str) -> None:
        """Raise if a network does not exist, without building it; no check by default.

        Raises:
            UsageError: there is no network of this name.
        """
        return

    def find_published(self, name: str) -> PublishedWeights | None:
        """Describe the published weights of a network, without a connection; None by default.

        Raises:
            UsageError: there is no such network.
        """
        return None

    @property
    def students(self) -> Sequence[str]:
        """Names of small networks that `kdedge train` suggests as students, from the largest; none by default."""
        return ()

    def fit(self, request: TrainConfig, dataset: DatasetIndex, out: Path, callback: RunCallback) -> RunRecord | None:
        """Train a model that is not a network, and write its run; None for networks, the default.

        Raises:
            UsageError: an option does not apply to the model.
        """
        return None

    @abstractmethod
    def choose_network(
        self, request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex, *, on_cpu: bool
    ) -> tuple[ModelSpec, InputSpec]:
        """Choose the network and its input.

        Args:
            request: training options.
            teachers: teachers, whose preprocessing the student shares.
            dataset: dataset index.
            on_cpu: True to choose a smaller default size.
        """

    @abstractmethod
    def build_model(self, model: ModelSpec, spec: Any) -> nn.Module:
        """Build a network with random weights, from features `[N, C, h, w]` to logits `[N, K]`."""

    def read_weights(self, model: ModelSpec, spec: Any, file: Path) -> dict[str, Tensor] | None:
        """Read a weights file of a network whose format or tensor names differ; None, the default, for any other.

        Raises:
            UsageError: the file is missing, damaged, or a pickle that would execute code.
        """
        return None

    def head_tensors(self, model: ModelSpec, spec: Any) -> tuple[str, ...]:
        """Return the tensors whose first dimension is the number of outputs, found by building two networks."""
        from dataclasses import replace

        few, more = (self.build_model(replace(model, classes=count), spec).state_dict() for count in (2, 3))
        return tuple(tensor for tensor in few if few[tensor].shape != more[tensor].shape)

    def foreign_feed(self, view: GraphIndex, name: str) -> tuple[InputSpec, GraphFeed]:
        """Describe the input of a teacher's graph of another framework; an error by default.

        Args:
            view: the graph.
            name: name of the file in messages.

        Returns:
            Input of the model, and the conversion of its samples to the input of the graph.

        Raises:
            ModelFileError: the graph takes other samples.
        """
        raise ModelFileError(
            f"{name} has no metadata of kdedge, and files of other frameworks can teach with images only. Expected a "
            "file of kdedge export, or a run folder."
        )

    @abstractmethod
    def augmenter(self, settings: Augmentation, spec: Any) -> Augmenter:
        """Create the augmentation of preprocessed samples.

        Raises:
            UsageError: the modality does not support a setting.
        """

    def mismatch(self, teacher: Any, spec: Any) -> str | None:
        """Return a warning about a teacher whose input differs from the student's; None by default."""
        return None

"""Time series at training: readers, networks and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.modalities.training_modality import Augmenter, TrainingModality

if TYPE_CHECKING:
    from torch import nn

    from kdedge.config.augmentation_settings import Augmentation
    from kdedge.config.train_config import TrainConfig
    from kdedge.data.dataset_index import DatasetIndex
    from kdedge.data.dataset_options import DatasetOptions
    from kdedge.data.unlabeled import UnlabeledSource
    from kdedge.models.graph_feed import GraphFeed
    from kdedge.models.model_spec import ModelSpec
    from kdedge.models.teacher_source import LoadedTeacher
    from kdedge_export.onnx_graph.graph_index import GraphIndex
    from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["TIMESERIES", "TimeseriesTraining"]


class TimeseriesTraining(TrainingModality):
    """Time series in `.ts`, CSV or Parquet files. Parts are imported on first use."""

    def reads(self, data: str) -> bool:
        """Return True for a `.ts` file, a folder of them, or a folder of recordings."""
        from kdedge.data.readers.series_files import reads_series

        return reads_series(data)

    @property
    def dataset_options(self) -> frozenset[str]:
        """Windows and groups of recordings."""
        return frozenset({"group_by", "window"})

    def index(self, data: str, options: DatasetOptions, *, unlabeled_ok: bool) -> DatasetIndex:
        """List the windows of a dataset; see `kdedge.data.readers.series_files`."""
        from kdedge.data.readers.series_files import list_series

        return list_series(data, options, unlabeled_ok=unlabeled_ok)

    def list_unlabeled(self, location: str, dataset: DatasetIndex, *, every_s: float) -> list[UnlabeledSource]:
        """List the windows of recordings, or the cases of a `.ts` file; see `list_unlabeled_series`."""
        from kdedge.data.readers.series_files import list_unlabeled_series
        from kdedge.data.series_samples import WindowSample

        sample = next(each for each in dataset.train.samples if isinstance(each, WindowSample))
        return list_unlabeled_series(Path(location), sample)

    def check_model(self, name: str) -> None:
        """Raise if there is no such network for time series."""
        from kdedge.modalities.timeseries_network import check_series_network

        check_series_network(name)

    @property
    def students(self) -> Sequence[str]:
        """The small convolutional network."""
        return ("series:small",)

    def choose_network(
        self, request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex, *, on_cpu: bool
    ) -> tuple[ModelSpec, TimeseriesInput]:
        """Choose the map resolution, and standardize the training windows; see `choose_series_network`."""
        from kdedge.modalities.timeseries_network import choose_series_network

        return choose_series_network(request, teachers, dataset)

    def build_model(self, model: ModelSpec, spec: TimeseriesInput) -> nn.Module:
        """Build a network for time series; see `build_series_network`."""
        from kdedge.models.series_network import build_series_network

        return build_series_network(model, len(spec.channels))

    def foreign_feed(self, view: GraphIndex, name: str) -> tuple[TimeseriesInput, GraphFeed]:
        """Describe the input of a teacher's graph of another framework; see `find_series_feed`."""
        from kdedge.models.series_feed import find_series_feed

        return find_series_feed(view, name)

    @property
    def flips(self) -> bool:
        """False, since a series has a direction in time."""
        return False

    def augmenter(self, settings: Augmentation, spec: TimeseriesInput) -> Augmenter:
        """Create the augmentation of windows; see `TimeseriesAugmenter`."""
        from kdedge.training.augmentation.timeseries_augmenter import TimeseriesAugmenter

        return TimeseriesAugmenter(settings, spec)


TIMESERIES = TimeseriesTraining()

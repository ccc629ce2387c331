"""Tables at training: readers, networks, and ensembles of trees as teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.modalities.training_modality import Augmenter, TrainingModality
from kdedge_runtime.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from kdedge.config.augmentation_settings import Augmentation
    from kdedge.config.train_config import TrainConfig
    from kdedge.data.dataset_index import DatasetIndex
    from kdedge.data.dataset_options import DatasetOptions
    from kdedge.data.grouping import GroupOf
    from kdedge.data.unlabeled import UnlabeledSource
    from kdedge.models.graph_feed import GraphFeed
    from kdedge.models.model_spec import ModelSpec
    from kdedge.models.run_folder import RunRecord
    from kdedge.models.teacher_source import LoadedTeacher
    from kdedge.tasks.training_task import TrainingTask
    from kdedge.training.run_callback import RunCallback
    from kdedge_export.onnx_graph.graph_index import GraphIndex
    from kdedge_runtime.feedback import FeedbackStore, FeedbackSummary
    from kdedge_runtime.modalities import InputSpec
    from kdedge_runtime.modalities.tabular import TabularInput

__all__ = ["TABULAR", "TabularTraining"]


class TabularTraining(TrainingModality):
    """Tables in CSV or Parquet files. Parts are imported on first use."""

    def reads(self, data: str) -> bool:
        """Return True for a table file, or a folder with `train.csv` or `train.parquet`."""
        from kdedge.data.readers.table_files import is_table

        return is_table(data)

    @property
    def dataset_options(self) -> frozenset[str]:
        """Column of groups, target, schema and task."""
        return frozenset({"group_by", "target", "schema", "task"})

    def index(self, data: str, options: DatasetOptions, *, unlabeled_ok: bool) -> DatasetIndex:
        """Read a table and its schema; see `kdedge.data.readers.table_files`."""
        from kdedge.data.readers.table_files import index_table

        return index_table(data, options)

    def list_unlabeled(self, location: str, dataset: DatasetIndex, *, every_s: float) -> list[UnlabeledSource]:
        """List the rows of a table without their targets; see `list_unlabeled_rows`."""
        from kdedge.data.readers.table_files import schema_of
        from kdedge.data.readers.unlabeled_rows import list_unlabeled_rows

        return list_unlabeled_rows(Path(location), schema_of(dataset.train))

    def write_feedback(
        self, entries: FeedbackStore, output: Path | None, unknown: Path | None, target: str | None
    ) -> FeedbackSummary:
        """Write reviewed rows as tables; see `write_reviewed_rows`."""
        from kdedge.data.reviewed_rows import write_reviewed_rows

        if target is None:
            raise UsageError("Rows need a column for the labels. Name it as in training: --target COLUMN.")
        return write_reviewed_rows(entries, output, unknown, target)

    def groups(self, dataset: DatasetIndex, group_by: str) -> GroupOf:
        """Return the function of a row's name to the value of a column; see `row_groups`."""
        from kdedge.data.table_groups import row_groups

        return row_groups(dataset, group_by)

    def describe(self, data: str, options: DatasetOptions) -> list[tuple[str, ...]]:
        """Describe the columns, and the target last; see `describe_schema`."""
        from kdedge.data.readers.table_files import index_table, schema_of
        from kdedge.data.table_schema import describe_schema

        rows = index_table(data, options).train
        return describe_schema(schema_of(rows), rows.targets)

    def default_recipe(self, kind: str) -> str:
        """Return the recipe of dense networks, with labels only to train."""
        return "table-labels" if kind == "train" else "table"

    def check_model(self, name: str) -> None:
        """Raise if there is no such network or ensemble."""
        from kdedge.models.table_network import network_widths
        from kdedge.models.trees import TREE_LIBRARIES

        if name not in TREE_LIBRARIES:
            network_widths(name)

    def fit(self, request: TrainConfig, dataset: DatasetIndex, out: Path, callback: RunCallback) -> RunRecord | None:
        """Train an ensemble of trees for `--model xgboost` or `lightgbm`; see `fit_trees`."""
        from kdedge.models.trees import TREE_LIBRARIES
        from kdedge.training.tree_fitting import fit_trees

        if request.model not in TREE_LIBRARIES or request.teacher:
            return None
        record = fit_trees(request, dataset, out, callback)
        self.write_companions(dataset, record.input, out)
        return record

    def choose_network(
        self, request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex, *, on_cpu: bool
    ) -> tuple[ModelSpec, TabularInput]:
        """Choose the columns and fit their encoding; see `choose_table_network`."""
        from kdedge.modalities.tabular_network import choose_table_network

        return choose_table_network(request, teachers, dataset)

    def build_model(self, model: ModelSpec, spec: TabularInput) -> nn.Module:
        """Build dense layers; see `build_table_network`."""
        from kdedge.models.table_network import build_table_network

        return build_table_network(model.name, model.classes, spec)

    def foreign_feed(self, view: GraphIndex, name: str) -> tuple[TabularInput, GraphFeed]:
        """Describe the input of a graph of another framework; see `feed_of_table_graph`."""
        from kdedge.models.table_graph import feed_of_table_graph

        return feed_of_table_graph(view, name)

    def augmenter(self, settings: Augmentation, spec: TabularInput) -> Augmenter:
        """Create the augmentation of rows, which changes nothing; see `TabularAugmenter`."""
        from kdedge.training.augmentation.tabular_augmenter import TabularAugmenter

        return TabularAugmenter(settings)

    def merit(self, task: TrainingTask) -> Callable[[Mapping[str, float]], tuple[float, ...]]:
        """Return the loss on the validation rows as the sort key, smallest best.

        Tables often have few rows or a rare class. An untrained network that answers with the frequent class may then
        have the highest accuracy.
        """
        return lambda metrics: (-metrics["val_loss"],) if "val_loss" in metrics else task.merit(metrics)

    def write_companions(self, dataset: DatasetIndex, spec: InputSpec, folder: Path) -> None:
        """Write the schema next to a run, with the columns as the model takes them."""
        from kdedge.data.readers.table_files import schema_of
        from kdedge.data.table_schema import SCHEMA_FILE
        from kdedge.modalities.tabular_network import schema_of_input

        schema_of_input(schema_of(dataset.train), spec).write(folder / SCHEMA_FILE)

    def options_of_run(self, options: DatasetOptions, folder: Path, data: str) -> DatasetOptions:
        """Return the schema of the run instead of the options from which it follows.

        Groups are omitted for another table without their column, which is not an input of the model.
        """
        from kdedge.data.readers.table_files import has_column
        from kdedge.data.table_schema import SCHEMA_FILE

        path = folder / SCHEMA_FILE
        if options.group_by is not None and not has_column(data, options.group_by):
            options = replace(options, group_by=None)
        return replace(options, schema=str(path), target=None, task=None) if path.is_file() else options


TABULAR = TabularTraining()

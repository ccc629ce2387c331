"""Choose the network of a table model and its input: the columns, with the constants of their encoding."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from kdedge.config.train_config import TrainConfig
from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.readers.table_files import RowSample, schema_of
from kdedge.data.table_columns import fit_column
from kdedge.data.table_schema import ColumnSchema, TableSchema
from kdedge.models.model_spec import ModelSpec
from kdedge.models.table_network import network_widths
from kdedge.models.teacher_source import LoadedTeacher
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.table_column import split_unit
from kdedge_runtime.modalities.tabular import TabularInput

__all__ = ["choose_table_network", "fit_input"]


def choose_table_network(
    request: TrainConfig, teachers: Sequence[LoadedTeacher], collection: DatasetIndex
) -> tuple[ModelSpec, TabularInput]:
    """Choose the network, and fit its input on the training rows.

    Columns and categories have the order of the first teacher, which receives the same values.

    Raises:
        UsageError: there is no such network, or the teacher has columns that the table lacks.
    """
    network_widths(request.model)
    schema = schema_of(collection.train)
    if teachers:
        schema = _as_taught(schema, teachers[0])
    return ModelSpec(request.model, len(collection.labels)), fit_input(collection, schema)


def fit_input(collection: DatasetIndex, schema: TableSchema) -> TabularInput:
    """Fit the constants of all used columns on the training rows, and the scale of a regression."""
    rows = [sample.row for sample in collection.train.samples if isinstance(sample, RowSample)]
    names = [split_unit(title)[0] for title in rows[0].titles]
    columns = []
    for column in schema.used:
        place = names.index(column.name)
        columns.append(fit_column(column, [row.cells[place] for row in rows]))
    spec = TabularInput(tuple(columns))
    if schema.task != "regression":
        return spec
    targets = [float(target) for target in collection.train.targets]
    return replace(spec, scale=(statistics.fmean(targets), statistics.pstdev(targets) or 1.0))


def _as_taught(schema: TableSchema, teacher: LoadedTeacher) -> TableSchema:
    """Return the schema with the columns of a teacher, in its order and with its categories."""
    assert isinstance(teacher.input, TabularInput), "the kind is checked when the teacher is loaded"
    there = {column.name: column for column in schema.used}
    lost = [column.name for column in teacher.input.features if column.name not in there]
    if lost:
        raise UsageError(
            f"The teacher {teacher.name} uses the column {lost[0]!r}, which the table does not have or its schema "
            "ignores. Expected a teacher trained on the same columns."
        )
    columns = tuple(
        ColumnSchema(taught.name, taught.kind, there[taught.name].unit, taught.categories)
        for taught in teacher.input.features
    )
    return replace(schema, columns=columns)

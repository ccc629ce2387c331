"""Choose the network of a table model and its input: the columns, with the constants of their encoding."""

import logging
import statistics
from collections.abc import Sequence
from dataclasses import replace

from kdedge.config.train_config import TrainConfig
from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.readers.table_files import schema_of
from kdedge.data.row_samples import RowSample
from kdedge.data.table_columns import fit_column
from kdedge.data.table_schema import ColumnSchema, TableSchema, input_titles
from kdedge.models.model_spec import ModelSpec
from kdedge.models.table_network import network_widths
from kdedge.models.teacher_source import LoadedTeacher
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.modalities.table_column import TableColumn, find_title
from kdedge_runtime.modalities.tabular import TabularInput

__all__ = ["choose_table_network", "fit_input", "schema_of_input"]

_log = logging.getLogger(__name__)


def choose_table_network(
    request: TrainConfig, teachers: Sequence[LoadedTeacher], dataset: DatasetIndex
) -> tuple[ModelSpec, TabularInput]:
    """Choose the network, and fit its input on the training rows.

    Columns and categories have the order of the first teacher, which receives the same values.

    Raises:
        UsageError: there is no such network, the columns of a teacher are not those of the table, or teachers differ.
    """
    network_widths(request.model)
    for name in ("size", "output_stride"):
        if name in request.given:
            raise UsageError(f"--{name.replace('_', '-')} does not apply to tables. Remove it.")
    schema = schema_of(dataset.train)
    if teachers:
        schema = _as_taught(schema, teachers[0])
        for other in teachers[1:]:
            _require_same(teachers[0], other)
    return ModelSpec(request.model, len(dataset.labels)), fit_input(dataset, schema)


def fit_input(dataset: DatasetIndex, schema: TableSchema) -> TabularInput:
    """Fit the constants of all used columns on the training rows, and the scale of a regression."""
    rows = [sample.row for sample in dataset.train.samples if isinstance(sample, RowSample)]
    titles = input_titles(rows[0].titles, schema.target, dataset.source)
    columns = []
    for column in schema.used:
        place = find_title(titles, column.name, column.unit)
        assert place is not None, "the reader checks the columns"
        columns.append(fit_column(column, [row.cells[place] for row in rows]))
    spec = TabularInput(tuple(columns))
    if schema.task != "regression":
        return spec
    targets = [float(target) for target in dataset.train.targets]
    return replace(spec, scale=(statistics.fmean(targets), statistics.pstdev(targets) or 1.0))


def schema_of_input(schema: TableSchema, spec: InputSpec) -> TableSchema:
    """Return the schema with the columns that an input takes first, in its order; all others are ignored."""
    assert isinstance(spec, TabularInput)
    there = {column.name: column for column in schema.columns}
    taken = tuple(
        replace(there[column.name], kind=column.kind, unit=column.unit, categories=column.categories)
        for column in spec.features
    )
    names = set(spec.column_names)
    left = tuple(replace(column, kind="ignored") for column in schema.columns if column.name not in names)
    return replace(schema, columns=taken + left)


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
    for taught in teacher.input.features:
        own = there[taught.name]
        if taught.kind != own.kind or (None not in (taught.unit, own.unit) and taught.unit != own.unit):
            raise UsageError(
                f"The teacher {teacher.name} takes the column {taught.title!r} as {taught.kind}, but in the table it "
                f"is {own.kind}{'' if own.unit is None else f' in {own.unit}'}. Expected the kinds and units of the "
                "teacher: give its schema with --schema."
            )
    if changes := _changes(schema, teacher.input.features):
        _log.warning(
            "The student takes the schema of its teacher %s, which differs from that of the table: %s.",
            teacher.name,
            "; ".join(changes),
        )
    columns = tuple(
        ColumnSchema(taught.name, taught.kind, there[taught.name].unit or taught.unit, taught.categories)
        for taught in teacher.input.features
    )
    return replace(schema, columns=columns)


def _changes(schema: TableSchema, taught: Sequence[TableColumn]) -> list[str]:
    """Return the differences of a teacher's columns from the schema of a table, one phrase for each kind."""
    own = {column.name: column for column in schema.used}
    names = [column.name for column in taught]
    unused = [name for name in own if name not in names]
    other = [column.name for column in taught if column.categories != own[column.name].categories]
    phrases = (("without", unused), ("with other categories of", other))
    found = [f"{phrase} {', '.join(columns)}" for phrase, columns in phrases if columns]
    return found or ["with the columns in another order"] * (names != list(own))


def _require_same(first: LoadedTeacher, other: LoadedTeacher) -> None:
    """Raise unless a teacher takes the columns of the first one, since both receive the same values."""
    assert isinstance(first.input, TabularInput) and isinstance(other.input, TabularInput)
    ours, theirs = (
        [(column.name, column.kind, column.categories) for column in each.features]
        for each in (first.input, other.input)
    )
    units = [(a.unit, b.unit) for a, b in zip(first.input.features, other.input.features, strict=False)]
    if ours != theirs or any(None not in pair and pair[0] != pair[1] for pair in units):
        odd = next((a[0] for a, b in zip(ours, theirs, strict=False) if a != b), None)
        raise UsageError(
            f"The teachers {first.name} and {other.name} have other columns"
            f"{'' if odd is None else f', such as {odd!r}'}. Expected the same names, kinds, units and categories in "
            "the same order: train both with the same --schema."
        )

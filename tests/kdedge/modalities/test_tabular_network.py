"""Columns of students and of their teachers."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdedge.config.train_config import TrainConfig
from kdedge.data import index_dataset
from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.readers.table_files import schema_of
from kdedge.modalities.tabular import TABULAR
from kdedge.modalities.tabular_network import schema_of_input
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput

AGE = TableColumn("age", "numeric", "years")
JOB = TableColumn("job", "categorical", categories=("b", "a"), reference=(0.0, 0.0))


def dataset(tmp_path: Path) -> DatasetIndex:
    lines = [f"{number},{'ab'[number % 2]},{number % 5},{'no' if number % 3 else 'yes'}" for number in range(60)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["age [years],job,x,answer", *lines]) + "\n", encoding="utf-8")
    return index_dataset(path, DatasetOptions(target="answer"))


def chosen(data: DatasetIndex, *columns: tuple[TableColumn, ...]) -> TabularInput:
    teachers: list[Any] = [
        SimpleNamespace(name=f"runs/{place}", input=TabularInput(each)) for place, each in enumerate(columns)
    ]
    return TABULAR.choose_network(TrainConfig("toy", "mlp:4"), teachers, data, on_cpu=True)[1]


def test_columns_are_those_of_the_teachers(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    spec = chosen(data, (JOB, AGE), (JOB, replace(AGE, unit=None)))
    assert spec.column_names == ("job", "age") and spec.features[0].categories == ("b", "a")
    schema = schema_of_input(schema_of(data.train), spec)
    assert [(column.name, column.kind) for column in schema.columns] == [
        ("job", "categorical"),
        ("age", "numeric"),
        ("x", "ignored"),
    ]
    assert schema.columns[0].categories == ("b", "a") and schema.columns[1].unit == "years"


@pytest.mark.parametrize(
    "other",
    [
        (AGE, JOB),
        (JOB,),
        (replace(JOB, categories=("a", "b")), AGE),
        (JOB, replace(AGE, unit="months")),
    ],
)
def test_teachers_of_other_columns_are_refused(tmp_path: Path, other: tuple[TableColumn, ...]) -> None:
    with pytest.raises(UsageError, match=r"runs/0 and runs/1"):
        chosen(dataset(tmp_path), (JOB, AGE), other)


def test_options_of_images_are_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    for options in ({"size": 64}, {"output_stride": 8}):
        with pytest.raises(UsageError, match="does not apply to tables"):
            TABULAR.choose_network(TrainConfig("toy", "mlp:4", **options), [], data, on_cpu=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", [replace(AGE, unit="months"), TableColumn("job", "numeric")])
def test_teacher_of_another_unit_or_kind_is_refused(tmp_path: Path, column: TableColumn) -> None:
    with pytest.raises(UsageError, match=r"runs/0 .*--schema"):
        chosen(dataset(tmp_path), (column,))

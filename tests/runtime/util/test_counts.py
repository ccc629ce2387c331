"""Counts with nouns, and sizes of maps."""

import pytest

from kdedge_runtime.devices.detection import MachineInfo
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.util.counts import counted, grid_text


@pytest.mark.parametrize(
    ("count", "plural", "text"),
    [(0, None, "0 cores"), (1, None, "1 core"), (1189, None, "1,189 cores"), (2, "x", "2 x")],
)
def test_noun_agrees_with_its_count(count: int, plural: str | None, text: str) -> None:
    assert counted(count, "core", plural) == text


def test_maps_have_rows_first() -> None:
    assert grid_text(1, 20) == "1 × 20" and grid_text(None, 7) == "? × 7"


def test_one_core_and_one_column_are_singular() -> None:
    assert MachineInfo(None, "A55", "aarch64", 1, (), None).processor == "A55, aarch64, 1 core"
    assert TabularInput((TableColumn("age", "numeric"),)).summary == "1 column"

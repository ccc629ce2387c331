"""Evenly spaced indices."""

import pytest

from kdedge_runtime.util.arrays import evenly_spaced


@pytest.mark.parametrize(
    ("total", "most", "expected"),
    [(10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4]), (3, 8, [0, 1, 2]), (0, 4, [])],
)
def test_indices_are_evenly_spaced(total: int, most: int, expected: list[int]) -> None:
    assert evenly_spaced(total, most).tolist() == expected

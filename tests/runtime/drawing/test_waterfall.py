"""Waterfalls of rows."""

import numpy as np
import pytest

from kdedge_runtime.drawing.waterfall import Bar, bars_of, columns_of, draw_row, draw_waterfall
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput

SPEC = TabularInput(
    tuple(TableColumn(f"column {place}", "numeric", edges=(0.0, 1.0), reference=(0.5,)) for place in range(15))
)
FOR, AGAINST = (255, 152, 56), (86, 156, 255)
PAGE, AXIS, LINE = (18, 18, 24), (70, 70, 84), 26


def widths(drawn: np.ndarray, color: tuple[int, int, int]) -> list[int]:
    """Return the width of each bar of a color, from top to bottom."""
    counts = (drawn == color).all(axis=2).sum(axis=1)
    return [int(counts[row]) for row in range(1, len(counts)) if counts[row] and not counts[row - 1]]


def test_bars_are_sorted_and_the_rest_is_summed_up() -> None:
    contributions = np.linspace(-1, 0.4, 15).astype(np.float32)
    bars = bars_of(SPEC, np.zeros(15, np.float32), contributions)
    assert len(bars) == 12 and bars[0].title == "column 0" and bars[-1].title == "4 other columns"
    assert np.isclose(sum(bar.contribution for bar in bars), contributions.sum())
    assert len(bars_of(SPEC, np.zeros(15, np.float32), contributions, most=20)) == 15


def test_single_bar_sums_up_all_columns_and_fewer_are_rejected() -> None:
    contributions = np.linspace(-1, 0.4, 15).astype(np.float32)
    (bar,) = bars_of(SPEC, np.zeros(15, np.float32), contributions, most=1)
    assert bar.title == "15 other columns" and bar.contribution == pytest.approx(contributions.sum())
    for most in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            bars_of(SPEC, np.zeros(15, np.float32), contributions, most=most)
        with pytest.raises(ValueError, match="at least 1"):
            columns_of([contributions], most)


def test_values_that_are_not_finite_count_as_zero() -> None:
    bars = bars_of(SPEC, np.full(15, np.nan, np.float32), np.array([np.nan, np.inf, *[0.0] * 13], np.float32))
    assert all(bar.contribution == 0 for bar in bars) and bars[0].value == "missing"
    assert draw_waterfall(bars).dtype == np.uint8


def test_lengths_are_proportional_and_colors_show_the_sign() -> None:
    drawn = draw_waterfall([Bar("a", "1", 2.0), Bar("b", "2", -1.0), Bar("c", "3", 0.5)], "yes 90%", "detail")
    (first, last), (middle,) = widths(drawn, FOR), widths(drawn, AGAINST)
    assert first > 150 and abs(middle / first - 0.5) < 0.02 and abs(last / first - 0.25) < 0.02


@pytest.mark.parametrize("seed", range(20))
def test_numbers_overlap_neither_bars_nor_the_axis(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bars = [Bar("name", "value", float(each)) for each in rng.normal(rng.choice([-1, 0, 1]), 1, 9) * 10 ** (seed % 5)]
    drawn = draw_waterfall(bars)
    colors = {color: (drawn == color).all(axis=2) for color in (FOR, AGAINST, PAGE, AXIS)}
    axis = int(colors[AXIS].sum(axis=0).argmax())
    is_bar = colors[FOR] | colors[AGAINST]
    assert (colors[AXIS] | is_bar)[: len(bars) * LINE, axis].all(), "no text on the axis"
    for place, bar in enumerate(bars):
        line = slice(place * LINE, (place + 1) * LINE)
        where = np.argwhere(is_bar[line])
        (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0)
        assert is_bar[line][top : bottom + 1, left : right + 1].all(), "no text on the bar"
        beside = ~(colors[PAGE] | colors[AXIS] | is_bar)[line].all(axis=0)
        sides = beside[left - 20 : left].any(), beside[right + 1 : right + 21].any()
        assert sides in ((True, False), (False, True)), "one number beside each bar"
        if not min(left, right) - 90 < axis < max(left, right) + 90:
            assert sides == ((True, False) if bar.contribution < 0 else (False, True)), "at the end of the bar"
    assert not beside[-2:].any()


def test_columns_with_bars_are_named() -> None:
    maps = [np.eye(15, dtype=np.float32)[14], np.linspace(0, 1, 15, dtype=np.float32)]
    assert columns_of(maps, 3) == [0, 13, 14] and columns_of(maps) == list(range(15)) and columns_of([]) == []
    titles = {bar.title for bar in bars_of(SPEC, np.zeros(15, np.float32), maps[1], 3)}
    assert titles == {"column 14", "column 13", "13 other columns"}


def test_row_has_all_columns_or_the_given_ones() -> None:
    values = np.zeros(15, np.float32)
    assert draw_row(SPEC, values).shape[0] == 16 * LINE
    assert draw_row(SPEC, values, places=[3, 14]).shape[0] == 3 * LINE
    wide = TabularInput(
        tuple(TableColumn(f"{place}", "numeric", edges=(0.0, 1.0), reference=(0.5,)) for place in range(50))
    )
    assert draw_row(wide, np.zeros(50, np.float32)).shape[0] == 41 * LINE


def test_texts_above_the_bars_take_room_only_if_there_are_any() -> None:
    bar = [Bar("n", "v", 1.0)]
    heights = [draw_waterfall(bar, *texts).shape[0] for texts in ((), ("head",), ("head", "detail"))]
    assert heights[0] < heights[1] < heights[2]
    assert draw_row(SPEC, np.zeros(15, np.float32)).shape[0] < draw_row(SPEC, np.zeros(15, np.float32), "head").shape[0]


def test_large_contributions_are_drawn_whole() -> None:
    drawn = draw_waterfall([Bar("n", "v", value) for value in (-153_620.4, 98_765_432.1, 120.5)])
    plain = draw_waterfall([Bar("n", "v", value) for value in (-1.0, 2.0, 0.1)])
    assert drawn.shape == plain.shape
    assert (drawn[:, -2:] == drawn[0, 0]).all(), "no text reaches the edge"


def test_long_texts_stay_inside() -> None:
    drawn = draw_waterfall([Bar("name " * 40, "value " * 40, 1.0)], "head " * 60)
    assert drawn.shape == draw_waterfall([Bar("n", "v", 1.0)], "head").shape
    assert draw_row(SPEC, np.zeros(15, np.float32)).shape[1] == drawn.shape[1]

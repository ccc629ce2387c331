"""Plots of time series with heat behind each channel."""

import numpy as np
import pytest

from kdedge_runtime.drawing.caption import Caption
from kdedge_runtime.drawing.series_plot import draw_series, plot_size
from kdedge_runtime.modalities.timeseries import TimeseriesInput

SPEC = TimeseriesInput(("ax", "ay"), 32, (0.0, 0.0), (1.0, 1.0), ("g", "g"), 10.0)
FLAT = np.zeros((32, 2), np.float32)


def test_heat_is_behind_its_channel_and_time() -> None:
    heat = np.zeros((2, 4), np.float32)
    heat[1, 3] = 1
    plain, hot = draw_series(FLAT, SPEC), draw_series(FLAT, SPEC, heat)
    changed = np.abs(plain.astype(int) - hot).sum(axis=2) > 60
    rows, columns = np.nonzero(changed)
    assert rows.min() > plain.shape[0] / 2 and columns.min() > plain.shape[1] / 2


def test_line_rises_with_the_value() -> None:
    low, high = FLAT.copy(), FLAT.copy()
    low[:, 0], high[:, 0] = -1.5, 1.5
    difference = np.abs(draw_series(low, SPEC).astype(int) - draw_series(high, SPEC)).sum(axis=2)
    rows = np.nonzero(difference.sum(axis=1))[0]
    _, row = plot_size(2)
    assert rows.max() < row
    upper, lower = (
        int((draw_series(sample, SPEC)[:row].sum(axis=2) < 200).any(axis=1).argmax()) for sample in (high, low)
    )
    assert upper < lower


def test_missing_values_leave_a_gap() -> None:
    gap = FLAT.copy()
    gap[10:20, 0] = np.nan
    _, row = plot_size(2)
    ink = (draw_series(gap, SPEC)[:row].sum(axis=2) < 200).any(axis=0)
    width = len(ink)
    assert not ink[int(0.35 * width) : int(0.58 * width)].any() and ink[: int(0.2 * width)].any()


@pytest.mark.parametrize("channels", [1, 6, 200])
def test_any_number_of_channels_has_room(channels: int) -> None:
    names = tuple(str(index) for index in range(channels))
    spec = TimeseriesInput(names, 8, (0.0,) * channels, (1.0,) * channels)
    width, row = plot_size(channels)
    plot = draw_series(np.zeros((8, channels), np.float32), spec, caption=Caption("walking", "93%", 0.93))
    assert plot.shape[1:] == (width, 3) and plot.shape[0] > channels * row


def test_map_of_another_height_covers_the_plot() -> None:
    plain = draw_series(FLAT, SPEC)
    hot = draw_series(FLAT, SPEC, np.ones((1, 4), np.float32))
    _, row = plot_size(2)
    assert (plain[5, 300] != hot[5, 300]).any() and (plain[row + 20, 300] != hot[row + 20, 300]).any()

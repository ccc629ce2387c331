"""Windows never span a gap, a jump in time, a missing value or a change of the label."""

import logging
import math

import numpy as np
import pytest

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.timeseries.cutter import SeriesWindow, WindowCutter


def cut(
    times: list[float | None], hop: int = 2, labels: str | None = None, rate_hz: float | None = 10.0, **values: float
) -> tuple[list[SeriesWindow], WindowCutter]:
    """Push rows whose value is their number, except for those named `r3` and so on."""
    cutter = WindowCutter(4, hop, rate_hz, "test")
    windows = []
    for number, time_s in enumerate(times):
        label = None if labels is None else labels[number]
        windows.append(cutter.push(time_s, [values.get(f"r{number}", float(number))], label))
    return [window for window in windows if window is not None], cutter


def starts(windows: list[SeriesWindow]) -> list[int]:
    for window in windows:
        assert np.array_equal(window.values[:, 0], np.arange(4) + window.values[0, 0])
        assert window.first_row == window.values[0, 0]
    return [window.first_row for window in windows]


def even(count: int, period_s: float = 0.1, at_s: float = 5.0) -> list[float | None]:
    return [at_s + number * period_s for number in range(count)]


def test_windows_follow_at_the_hop() -> None:
    windows, cutter = cut(even(9))
    assert starts(windows) == [0, 2, 4] and not cutter.breaks
    assert windows[1].span_s == pytest.approx((0.2, 0.6))


def test_hop_beyond_the_length_skips_rows() -> None:
    assert starts(cut(even(20), hop=7)[0]) == [0, 7, 14]


def test_rows_without_timestamps_have_the_rate_of_the_model() -> None:
    windows, _ = cut([None] * 8)
    assert [window.span_s for window in windows] == [
        pytest.approx((0, 0.4)),
        pytest.approx((0.2, 0.6)),
        pytest.approx((0.4, 0.8)),
    ]
    windows, _ = cut([None] * 8, rate_hz=None)
    assert starts(windows) == [0, 2, 4] and windows[0].span_s is None


def test_backwards_timestamp_drops_the_window_in_progress(caplog: pytest.LogCaptureFixture) -> None:
    times = [*even(6), *even(6, at_s=5.25)]
    with caplog.at_level(logging.WARNING):
        windows, cutter = cut(times)
    assert starts(windows) == [0, 2, 6, 8] and cutter.breaks == {"backwards": 1}
    assert "backwards" in caplog.text


def test_repeated_timestamp_counts_as_backwards() -> None:
    windows, cutter = cut([*even(5), 5.4, *even(5, at_s=5.5)])
    assert cutter.breaks == {"backwards": 1} and starts(windows) == [0, 5, 7]


def test_gap_of_more_than_a_few_periods_cuts() -> None:
    windows, cutter = cut([*even(6), *even(6, at_s=5.9)])
    assert starts(windows) == [0, 2, 6, 8] and cutter.breaks == {"gap": 1}
    windows, cutter = cut([*even(6), *even(6, at_s=5.8)])
    assert starts(windows) == [0, 2, 4, 6, 8] and not cutter.breaks


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39])
def test_missing_values_are_never_in_a_window(value: float, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        windows, cutter = cut(even(12), r5=value, r6=value)
    assert starts(windows) == [0, 7] and cutter.breaks == {"missing": 1}
    assert len(caplog.records) == 1


def test_windows_have_one_label() -> None:
    windows, cutter = cut(even(12), labels="aaaaaabbbbbb")
    assert starts(windows) == [0, 2, 6, 8] and cutter.breaks == {"label": 1}


def test_interruption_drops_what_came_before() -> None:
    cutter = WindowCutter(4, 2, 10.0, "test")
    for number in range(3):
        assert cutter.push(None, [float(number)]) is None
    cutter.interrupt("silence")
    made = [cutter.push(None, [float(number)]) for number in range(3, 7)]
    assert made[:3] == [None] * 3 and made[3] is not None and made[3].values[0, 0] == 3


@pytest.mark.parametrize(("period_s", "fits"), [(0.1, True), (0.11, True), (0.05, False), (0.15, False), (1.0, False)])
def test_rows_at_another_rate_are_refused(period_s: float, fits: bool) -> None:
    if fits:
        assert starts(cut(even(6, period_s))[0]) == [0, 2]
    else:
        with pytest.raises(SourceError, match="rows per second"):
            cut(even(12, period_s))


def test_rate_is_compared_in_every_window() -> None:
    slow = even(4, 0.24, at_s=5.6)
    windows, cutter = cut([*even(6), *slow, *even(6, at_s=6.5)])
    assert starts(windows) == [0, 2, 4, 10, 12] and cutter.breaks["rate"] == 1
    with pytest.raises(SourceError, match=r"4\.167 rows per second"):
        cut([*even(6), *even(20, 0.24, at_s=5.74)])
    with pytest.raises(SourceError, match="rows per second"):
        cut([*even(6), *even(20, 0.001, at_s=5.6)])


def test_stream_time_goes_on_when_the_clock_of_the_sensor_restarts() -> None:
    windows, cutter = cut([*even(5, at_s=36000.0), *even(4, at_s=0.0)])
    assert [window.span_s for window in windows] == [pytest.approx((0, 0.4)), pytest.approx((0.5, 0.9))]
    cutter = WindowCutter(1, 1, 10.0, "test")
    cutter.push(50.0, [0.0])
    cutter.interrupt("silence")  # as after a reconnect
    window = cutter.push(3.0, [0.0])
    assert window is not None and window.span_s == pytest.approx((0.1, 0.2))


def test_row_without_time_hides_no_jump() -> None:
    assert cut([5.0, 5.1, None, 3.0, 3.1])[1].breaks == {"backwards": 1}
    assert cut([5.0, 5.1, None, 9.0, 9.1])[1].breaks == {"gap": 1}
    assert not cut([5.0, 5.1, None, 5.3, 5.4])[1].breaks


@pytest.mark.parametrize("start_s", [0.0, 5.0])
def test_break_is_located_from_the_first_row(start_s: float, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cut([*even(4, at_s=start_s), start_s + 9.0])
    assert "at 9.000 s" in caplog.text

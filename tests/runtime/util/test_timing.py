"""Timing: percentiles and means of stages, in constant memory."""

import time

import pytest

from kdedge_runtime.util import timing
from kdedge_runtime.util.timing import WINDOW, CpuShare, StageTally, StageTimer, Stopwatch, fastest_ms, latencies_ms


def test_statistics_of_known_durations() -> None:
    tally = StageTally()
    for duration_ms in range(1, 101):
        tally.add(float(duration_ms))
    stage = tally.stage()
    assert (stage.count, stage.mean_ms, stage.p50_ms) == (100, 50.5, 50.5)
    assert (stage.p95_ms, stage.p99_ms) == pytest.approx((95.05, 99.01))


def test_no_samples_give_none() -> None:
    assert StageTally().stage() is None
    assert StageTimer(("wait",)).stages() == {}


def test_percentiles_use_recent_samples_and_mean_uses_all() -> None:
    tally = StageTally()
    for _ in range(WINDOW):
        tally.add(100.0)
    for _ in range(WINDOW):
        tally.add(0.0)
    stage = tally.stage()
    assert (stage.count, stage.mean_ms, stage.p95_ms) == (2 * WINDOW, 50.0, 0.0)


def test_stages_are_in_milliseconds_and_ordered() -> None:
    now = iter([0.0, 0.010, 1.0, 1.002])
    timer = StageTimer(("wait", "inference", "overlay"), clock=lambda: next(now))
    with timer.measure("inference"):
        pass
    with timer.measure("wait"):
        pass
    stages = timer.stages()
    assert list(stages) == ["wait", "inference"]
    assert stages["inference"].mean_ms == pytest.approx(10)
    assert stages["wait"].mean_ms == pytest.approx(2)


def test_raising_block_is_not_a_sample() -> None:
    timer = StageTimer(("wait",))
    with pytest.raises(StopIteration), timer.measure("wait"):
        next(iter(()))
    assert timer.stages() == {}


def test_stopwatch_records_laps(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 1.5, 4.0, 4.25])
    monkeypatch.setattr("kdedge_runtime.util.timing.time.perf_counter", lambda: next(seconds))
    watch = Stopwatch()
    for _ in range(2):
        with watch:
            pass
    assert watch.laps_ms == [500, 250]


def test_latencies_are_medians_of_alternating_calls() -> None:
    made: list[str] = []

    def slow() -> None:
        made.append("slow")
        time.sleep(0.004)

    fast_ms, slow_ms = latencies_ms(lambda: made.append("fast"), slow, runs=3)
    assert made == ["fast", "slow"] * 8  # five warm-up rounds
    assert fast_ms < 4 <= slow_ms


def test_minimum_latency_ignores_slow_runs() -> None:
    waits = iter([0.0] * 5 + [0.006, 0.0, 0.006])  # five warm-up rounds
    other_ms, mostly_slow_ms = fastest_ms(lambda: None, lambda: time.sleep(next(waits)), runs=3)
    assert other_ms < 6 and mostly_slow_ms < 6


@pytest.mark.parametrize(
    ("computed_s", "waiting", "is_busy"),
    [(10.0, 0.5, False), (9.1, 0.5, False), (8.9, 0.5, True), (20.0, 0.5, False), (10.0, 1000.0, True)],
)
def test_disturbed_measurement_is_flagged(
    monkeypatch: pytest.MonkeyPatch, computed_s: float, waiting: float, is_busy: bool
) -> None:
    """Less than nine of ten seconds of one core, or more programs than cores, counts as busy."""
    clock, process = iter([100.0, 110.0]), iter([5.0, 5.0 + computed_s])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(timing.time, "process_time", lambda: next(process))
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (waiting, 0.0, 0.0), raising=False)
    with CpuShare() as share:
        pass
    assert share.is_busy == is_busy


def test_waiting_block_is_flagged() -> None:
    with CpuShare() as share:
        time.sleep(0.05)
    assert share.is_busy

"""Soak test on synthetic samples and short real runs: growth fails, noise passes."""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.cli.main import main
from kdedge_runtime.diagnostics import soak_test
from kdedge_runtime.diagnostics.checklist import DeviceCheck
from kdedge_runtime.diagnostics.soak_test import SoakSample, SoakTest, evaluate_soak, theil_sen
from kdedge_runtime.diagnostics.system_state import SystemState
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sources import open_source
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.process import memory_mb

HOUR_S = 3600.0
CALM = SystemState(50.0, 1500.0, 1500.0, (), (), None)


def hour(change: Callable[[SoakSample, float], SoakSample] = lambda sample, _: sample) -> list[SoakSample]:
    """Return samples of an hour with realistic noise, modified by `change`."""
    random = np.random.default_rng(0)
    samples = []
    for number in range(600):
        share = number / 599
        settling = 20 * (1 - np.exp(-share * 60))
        sample = SoakSample(
            time_s=share * HOUR_S,
            memory_mb=float(100 + settling + random.normal(0, 0.3)),
            open_files=int(9 + (random.random() < 0.1)),
            frames=int(share * 36_000),
            dropped=int(share * 72_000),
            age_ms=float(40 + random.normal(0, 3)),
        )
        samples.append(change(sample, share))
    return samples


def failed(checks: Sequence[DeviceCheck]) -> list[str]:
    return [check.name for check in checks if check.passed is False]


def test_steady_samples_pass() -> None:
    checks = evaluate_soak(hour(), HOUR_S)
    assert failed(checks) == []
    assert [check.name for check in checks] == ["duration", "memory", "open files", "drop rate", "frame age"]


def test_slow_leak_fails_with_hourly_rate() -> None:
    checks = evaluate_soak(hour(lambda s, share: replace(s, memory_mb=s.memory_mb + 6 * share)), HOUR_S)  # type: ignore[operator]
    assert failed(checks) == ["memory"]
    printed = next(check.found for check in checks if check.name == "memory")
    assert re.search(r"\(\+6\.\d MB per hour\)", printed), printed


def test_spike_is_not_a_leak() -> None:
    # A viewer was connected at the end.
    def watched(sample: SoakSample, share: float) -> SoakSample:
        return replace(sample, memory_mb=200.0) if 0.8 < share < 0.95 else sample

    assert failed(evaluate_soak(hour(watched), HOUR_S)) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda s, share: replace(s, open_files=s.open_files + int(10 * share)), "open files"),
        (lambda s, share: replace(s, dropped=int(72_000 * share + 60_000 * share**3)), "drop rate"),
        (lambda s, share: replace(s, age_ms=s.age_ms + 60 * share), "frame age"),
    ],
)
def test_each_growth_fails_independently(change: Callable[[SoakSample, float], SoakSample], name: str) -> None:
    assert failed(evaluate_soak(hour(change), HOUR_S)) == [name]


def test_temporary_open_files_are_not_a_leak() -> None:
    assert failed(evaluate_soak(hour(lambda s, share: replace(s, open_files=9 + int(share * 100) % 5)), HOUR_S)) == []


def test_early_end_fails() -> None:
    assert failed(evaluate_soak(hour()[:300], HOUR_S)) == ["duration"]
    assert failed(evaluate_soak([], HOUR_S)) == ["duration", "samples"]
    assert failed(evaluate_soak(hour()[:10], HOUR_S)) == ["duration", "samples"]


def test_unavailable_values_are_not_checked() -> None:
    checks = evaluate_soak(hour(lambda s, _: replace(s, memory_mb=None, open_files=None)), HOUR_S)
    assert [check.name for check in checks if check.passed is None] == ["memory", "open files"]


def test_theil_sen_is_robust_to_outliers() -> None:
    times = list(range(90))
    values = [2.0 * time + 5 for time in times]
    assert theil_sen(times, values) == pytest.approx(2)
    values[::4] = [1e6] * len(values[::4])
    assert theil_sen(times, values) == pytest.approx(2, abs=1)
    assert abs(np.polyfit(times, values, 1)[0]) > 100, "least squares is affected"


class Leak:
    """Faulty sink that leaks memory or open files."""

    wants_overlay = False

    def __init__(self, *, of: str) -> None:
        self._of = of
        self._kept: list[np.ndarray] = []
        self._files = contextlib.ExitStack()

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        if self._of == "memory":
            self._kept.append(np.ones(4_000_000, dtype=np.uint8))
        else:
            self._files.enter_context(Path(os.devnull).open())  # noqa: SIM115

    def __enter__(self) -> "Leak":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
        self._kept.clear()


def soaked(model: Model, *sinks: Leak, duration_s: float = 4.0) -> list[DeviceCheck]:
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source("synthetic:", None, stop))
        soak = stack.enter_context(SoakTest(duration_s, stop, read_state=lambda: CALM))
        run(model, source, [soak, *(stack.enter_context(sink) for sink in sinks)], stop=stop)
    return soak.checks()


def test_real_run_passes(model: Model) -> None:
    checks = soaked(model)
    assert not {"duration", "memory", "open files", "board"} & set(failed(checks)), checks


@pytest.mark.parametrize("of", ["memory", "open files"])
def test_leaking_run_fails(model: Model, monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    # As in a new process, because the leak may be small compared with memory left by other tests.
    held_mb = memory_mb()
    if held_mb is not None:
        monkeypatch.setattr(soak_test, "memory_mb", lambda: 100 + (memory_mb() or 0.0) - held_mb)
    assert of in failed(soaked(model, Leak(of=of)))


def test_throttling_fails(model: Model) -> None:
    states = iter([CALM] * 2)
    stop = threading.Event()
    soak = SoakTest(2.0, stop, read_state=lambda: next(states, replace(CALM, throttled=("under-voltage",))))
    with open_source("synthetic:", None, stop) as source, soak:
        run(model, source, [soak], stop=stop)
    assert soak.checks()[-1] == DeviceCheck("board", "under-voltage", "not throttled", False)


def test_soak_runs_for_its_duration_and_fails_on_early_end(
    model_path: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["soak", str(model_path), "--source", str(photos), "--duration", "10s"]) == 4
    printed = capfd.readouterr().err
    assert "[✗] duration" in printed
    assert printed.splitlines()[-1].startswith("error: The soak failed: duration")


@pytest.mark.parametrize("text", ["10", "0s", "1d", "-1s", "1h30m", ""])
def test_invalid_duration_is_rejected(model_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["soak", str(model_path), "--source", "synthetic:", f"--duration={text}"])
    assert stopped.value.code == 2
    assert "is not a duration such as 30s, 10m or 24h" in capsys.readouterr().err

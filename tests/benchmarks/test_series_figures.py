"""Figures of the benchmark of time series: the share in a stretch, intervals, and the published shapelet."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from timeseries import SHAPELET, accuracy_interval, divide, find_shapelet, interval, shapelet_accuracy, share_inside

from kdedge_runtime.sources.timeseries.ts_file import TsFile, read_ts

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "series.zip"


def test_uniform_map_has_the_share_of_the_stretch() -> None:
    for positions in (30, 37, 75, 150):
        share = share_inside(np.ones((2, 1, positions), np.float32), 109, 150)
        assert np.allclose(share, SHAPELET / 150)


def test_share_counts_positive_evidence_only() -> None:
    maps = np.zeros((1, 1, 150), np.float32)
    maps[0, 0, 109], maps[0, 0, 0], maps[0, 0, 120] = 3, 1, -5
    assert share_inside(maps, 109, 150) == pytest.approx(0.75)


def test_interval_is_of_the_mean_over_cases() -> None:
    figures = interval(np.concatenate((np.ones(90), np.zeros(10), [np.nan])))
    assert figures["mean"] == pytest.approx(0.9)
    assert figures["low"] == pytest.approx(0.84, abs=0.01) and figures["high"] == pytest.approx(0.95, abs=0.01)


def test_accuracy_without_an_error_has_an_interval() -> None:
    figures = accuracy_interval(np.ones(40))
    assert figures["mean"] == figures["high"] == 1 and figures["low"] == pytest.approx(0.025 ** (1 / 40), abs=0.001)


def test_best_threshold_divides_the_classes() -> None:
    gain, gap, threshold = divide(np.array([0.1, 0.9, 0.2, 0.8]), np.array([0, 1, 0, 1]))
    assert gain == pytest.approx(1.0, abs=1e-6) and gap == pytest.approx(0.6)
    assert threshold == pytest.approx(0.5)
    assert divide(np.array([0.1, 0.9, 0.2, 0.8]), np.array([0, 0, 1, 1]))[0] < 0.5


def test_shapelet_is_the_pattern_of_one_class() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.3, (12, 120, 1)).astype(np.float32)
    wave = np.sin(np.arange(SHAPELET) * 2 * np.pi / SHAPELET * 2)
    for case in range(0, 12, 2):
        values[case, 60 : 60 + SHAPELET, 0] += 3 * wave
    found = find_shapelet(TsFile("toy", ("wave", "none"), values, (0, 1) * 6))
    assert (
        found["class"] == "wave" and abs(found["start"] - 60) <= 6 and found["gain_bits"] == pytest.approx(1, abs=1e-6)
    )


@pytest.mark.data
def test_published_shapelet_of_gunpoint_is_found_again(tmp_path: Path) -> None:
    if not ARCHIVE.is_file():
        pytest.skip(f"no {ARCHIVE}")
    with zipfile.ZipFile(ARCHIVE) as archive:
        train, test = (read_ts(Path(archive.extract(f"GunPoint_{side}.ts", tmp_path))) for side in ("TRAIN", "TEST"))
    found = find_shapelet(train)
    assert (found["start"], found["class"]) == (109, "2")  # of the class Point, behind the return of the hand
    assert shapelet_accuracy(found, train, test) == pytest.approx(0.933, abs=0.001)  # as published

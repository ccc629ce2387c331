"""Input of a time series model: metadata, strict windows, masks and segments."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdedge_runtime.errors import UnreadableSample, UsageError
from kdedge_runtime.modalities import parse_input
from kdedge_runtime.modalities.timeseries import TimeseriesInput, describe_faults

SPEC = TimeseriesInput(("ax", "ay"), 8, (1.0, -1.0), (2.0, 0.5), ("g", "g"), 4.0, 2)


def test_metadata_round_trip() -> None:
    assert parse_input(json.loads(json.dumps(asdict(SPEC)))) == SPEC
    assert SPEC.hop_s == 0.5 and replace(SPEC, rate_hz=None).hop_s is None


@pytest.mark.parametrize(
    "change",
    [
        {"channels": ["ax", "ax"]},
        {"channels": []},
        {"channels": ["ax", "a\ny"]},
        {"length": 0},
        {"length": 10**9},
        {"hop": 0},
        {"std": [1.0, 0.0]},
        {"std": [1.0]},
        {"mean": [1.0, float("nan")]},
        {"rate_hz": 0.0},
        {"units": ["g"]},
    ],
)
def test_invalid_metadata_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        parse_input(asdict(SPEC) | change)


@pytest.mark.parametrize("change", [{"length": 8.5}, {"channels": [1, 2]}, {"mean": ["a", "b"]}])
def test_metadata_of_another_type_is_rejected(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        parse_input(asdict(SPEC) | change)


def test_windows_are_neither_cut_nor_padded() -> None:
    window = np.arange(16, dtype=np.float64).reshape(8, 2)
    kept = SPEC.preprocess(window)
    assert kept.dtype == np.float32 and np.array_equal(kept, window)
    for other in (window[:7], np.vstack((window, window)), window[:, :1], window.T):
        with pytest.raises(UnreadableSample, match=r"\[8, 2\]"):
            SPEC.preprocess(other)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "missing"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_values_that_are_not_finite_name_their_channel(value: float, word: str) -> None:
    window = np.zeros((8, 2), np.float32)
    window[5, 1] = value
    with pytest.raises(UnreadableSample, match=f"{word}.*ay.*step 5"):
        SPEC.preprocess(window)
    assert describe_faults(np.zeros((8, 2), np.float32), SPEC.channels) is None


def test_hidden_values_take_the_mean_of_their_channel() -> None:
    window, keep = np.ones((8, 2), np.float32) * (4, 3), np.ones((1, 2, 8), np.float32)
    keep[0, 1, 2], keep[0, 0, 3] = 0, 0.5
    (masked,) = SPEC.mask(window.astype(np.float32), keep)
    assert masked[2].tolist() == [4, -1] and masked[3].tolist() == [2.5, 3] and masked[0].tolist() == [4, 3]


@pytest.mark.parametrize("count", [1, 2, 3, 6, 16, 1000])
def test_segments_are_numbered_without_gaps(count: int) -> None:
    parts = SPEC.segments(np.zeros((8, 2), np.float32), count)
    assert parts.shape == (2, 8) and parts.max() + 1 <= count
    assert np.array_equal(np.unique(parts), np.arange(parts.max() + 1))
    if count >= 2:
        assert not set(parts[0]) & set(parts[1])


def test_few_channels_do_not_make_a_map_coarse() -> None:
    assert SPEC.positions((2, 7)) == 7


def test_statistics_of_a_map_are_on_the_time_axis() -> None:
    saliency_map = np.zeros((2, 4), np.float32)
    saliency_map[1, 3] = 1
    stats = SPEC.map_stats(saliency_map, np.zeros((8, 2), np.float32), (0.0, 0.0))
    assert (stats.cx, stats.cy) == (0.875, 0.75)


def test_reference_samples_differ_and_are_finite() -> None:
    first, second = (SPEC.reference_sample(seed) for seed in (0, 1))
    assert first.shape == (8, 2) and np.isfinite(first).all() and not np.array_equal(first, second)


def test_regions_are_refused() -> None:
    with pytest.raises(UsageError, match="--crop"):
        SPEC.parse_regions(["0,0,1,1"])


@pytest.mark.parametrize("change", [{}, {"rate_hz": None}, {"units": ()}])
def test_encoded_windows_are_read_back_exactly(change: dict[str, Any], tmp_path: Path) -> None:
    spec = replace(SPEC, **change)
    window = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32) * 1e-3
    file = tmp_path / f"a{spec.sample_suffix}"
    file.write_bytes(spec.encode_sample(window))
    with spec.open_source(str(file)) as source:
        (frame,) = source
    assert np.array_equal(frame.sample, window)

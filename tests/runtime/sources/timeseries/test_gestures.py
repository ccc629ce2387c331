"""Synthetic wrist sensor: gestures, their masks, and models that it does not fit."""

from dataclasses import replace

import numpy as np
import pytest

from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.timeseries import TimeseriesInput
from kdedge_runtime.sources.timeseries.gestures import (
    CHANNELS,
    GESTURES,
    LENGTH,
    RATE_HZ,
    SyntheticSeries,
    render_gesture,
)

SPEC = TimeseriesInput(CHANNELS, LENGTH, (0.0,) * 3, (1.0,) * 3, rate_hz=RATE_HZ, hop=25)


@pytest.mark.parametrize("label", GESTURES)
def test_mask_covers_the_gesture(label: str) -> None:
    inside, outside = [], []
    for seed in range(40):
        gesture = render_gesture(label, np.random.default_rng(seed))
        assert gesture.values.shape == (LENGTH, 3) and gesture.mask.any(axis=1).sum() == 1
        change = np.abs(np.diff(gesture.values, axis=0, prepend=gesture.values[:1])).T
        inside.append(change[gesture.mask].mean())
        outside.append(change[~gesture.mask].mean())
    assert np.mean(inside) > 1.5 * np.mean(outside)


def test_source_is_the_same_in_every_run() -> None:
    with SPEC.open_source("synthetic:", "all") as source:
        assert source.live and source.fps == 2
        first = next(iter(source))
    with SyntheticSeries(hop=1, frames=5) as source:
        frames = list(source)
    assert np.array_equal(first.sample, frames[0].sample)
    assert [frame.truth.label for frame in frames if frame.truth] == [*GESTURES, GESTURES[0]]
    assert frames[1].span_s == pytest.approx((0.02, 2.02))
    with SPEC.open_source("synthetic:tap", "all") as source:
        truth = next(iter(source)).truth
    assert truth is not None and truth.label == "tap" and truth.box is None


@pytest.mark.parametrize("spec", [replace(SPEC, length=64), replace(SPEC, channels=("a", "b", "c"))])
def test_other_models_are_refused(spec: TimeseriesInput) -> None:
    with pytest.raises(UsageError, match="--source synthetic"):
        spec.open_source("synthetic:")


def test_unknown_gesture_is_refused() -> None:
    with pytest.raises(UsageError, match="wave"):
        SPEC.open_source("synthetic:wave")

"""Synthetic wrist sensor with ground truth: one gesture per window, in one channel."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.errors import UsageError
from kdedge_runtime.sources.source import Frame, GroundTruth
from kdedge_runtime.util.arrays import Floats

if TYPE_CHECKING:
    from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["CHANNELS", "GESTURES", "LENGTH", "RATE_HZ", "UNITS", "Gesture", "SyntheticSeries", "render_gesture"]

CHANNELS = ("ax", "ay", "az")
UNITS = ("g", "g", "g")
RATE_HZ = 50.0
LENGTH = 100
"""Steps of a window."""
GESTURES = ("rattle", "shake", "swing", "tap")
"""Class names."""

_REST_G = (0.0, 0.1, 1.0)
_WANDER_G, _NOISE_G, _BUMP_G = 0.15, 0.03, 0.5
_SLOWEST_S = 0.3
"""Shortest period of the wander in seconds."""
_LENGTHS_S = {"rattle": 0.5, "shake": 0.7, "swing": 0.9, "tap": 0.16}
_RATES_HZ = {"rattle": 12.0, "shake": 5.0, "swing": 1.2, "tap": 18.0}
_IN_CHANNEL = {"rattle": 2, "shake": 0, "swing": 1, "tap": 2}

Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Gesture:
    """Window with ground truth."""

    values: Floats
    """Acceleration in g, float32 `[LENGTH, 3]`."""
    mask: Mask
    """bool `[3, LENGTH]`: channel and time of the gesture."""
    label: str


def render_gesture(label: str, generator: np.random.Generator) -> Gesture:
    """Render a gesture at a random time, with slow movements of the hand and a smooth bump that means nothing.

    Args:
        label: one of `GESTURES`.
        generator: source of random numbers.
    """
    steps = np.arange(LENGTH)
    values = np.array(_REST_G) + generator.normal(0, _NOISE_G, (LENGTH, 3))
    for channel in range(3):
        periods_s = generator.uniform(_SLOWEST_S, 3.0, 3)
        phases = generator.uniform(0, 2 * np.pi, 3)
        waves = np.sin(2 * np.pi * steps[:, None] / RATE_HZ / (5 * periods_s) + phases)
        values[:, channel] += _WANDER_G * waves.sum(axis=1)
    bump = np.exp(-0.5 * ((steps - generator.uniform(0, LENGTH)) / 5) ** 2)
    values[:, generator.integers(3)] += _BUMP_G * generator.choice([-1, 1]) * bump
    length = round(_LENGTHS_S[label] * generator.uniform(0.8, 1.2) * RATE_HZ)
    start = int(generator.integers(0, LENGTH - length + 1))
    inside = np.arange(length)
    turns = _RATES_HZ[label] * generator.uniform(0.9, 1.1) * inside / RATE_HZ
    wave = np.sin(2 * np.pi * turns) * generator.uniform(0.6, 1.2) * generator.choice([-1, 1])
    envelope = np.exp(-3 * inside / length) if label == "tap" else np.sin(np.pi * (inside + 0.5) / length) ** 0.5
    channel = _IN_CHANNEL[label]
    values[start : start + length, channel] += wave * envelope
    mask = np.zeros((3, LENGTH), dtype=np.bool_)
    mask[channel, start : start + length] = True
    return Gesture(values.astype(np.float32), mask, label)


class SyntheticSeries:
    """Live source of rendered windows in real time, identical in every run. Each has its label."""

    live = True
    dropped = 0
    reconnects = 0
    unreadable = 0
    paths: tuple[Path, ...] = ()

    def __init__(self, kind: str | None = None, *, hop: int = LENGTH, frames: int | None = None, seed: int = 0) -> None:
        """Create a synthetic sensor.

        Args:
            kind: one of `GESTURES`; None cycles through all.
            hop: steps between two windows; each has values of its own.
            frames: number of windows; None for no end.
            seed: seed of the gestures.

        Raises:
            UsageError: `kind` is unknown.
        """
        if kind is not None and kind not in GESTURES:
            raise UsageError(f"There is no gesture {kind!r}. Expected synthetic: or one of: {', '.join(GESTURES)}.")
        self.name = f"synthetic:{kind or ''}"
        self.expected = frames
        self.fps: float | None = RATE_HZ / hop
        self._kinds = GESTURES if kind is None else (kind,)
        self._hop_s = hop / RATE_HZ
        self._seed = seed
        self._started = 0.0

    @classmethod
    def check(cls, spec: "TimeseriesInput") -> None:
        """Raise unless a model takes these windows.

        Raises:
            UsageError: its channels or its length differ.
        """
        if spec.channels != CHANNELS or spec.length != LENGTH:
            raise UsageError(
                f"--source synthetic: draws {LENGTH} steps of {', '.join(CHANNELS)}, for the model of kdedge demo "
                f"--modality timeseries. This model takes {spec.length} steps of {', '.join(spec.channels)}. Give a "
                "recording or a sensor."
            )

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        numbers = itertools.count() if self.expected is None else range(self.expected)
        for index in numbers:
            gesture = render_gesture(self._kinds[index % len(self._kinds)], np.random.default_rng((self._seed, index)))
            time.sleep(max(0.0, self._started + index * self._hop_s - time.monotonic()))
            span_s = (index * self._hop_s, index * self._hop_s + LENGTH / RATE_HZ)
            truth = GroundTruth(gesture.label)
            yield Frame(index, gesture.values, time.monotonic(), f"synthetic-{index:06d}", truth, span_s)

"""Demonstration on gestures of a synthetic wrist sensor, with exact masks of channel and time."""

from pathlib import Path

import numpy as np

from kdedge.config.train_config import TrainConfig
from kdedge.demo.demo_scenario import DemoScenario, DemoSizes, Masks
from kdedge_runtime.sources.timeseries.gestures import (
    CHANNELS,
    GESTURES,
    LENGTH,
    RATE_HZ,
    UNITS,
    SyntheticSeries,
    render_gesture,
)
from kdedge_runtime.util.arrays import Floats

__all__ = ["TIMESERIES"]

_BATCH = 32
_HOP = 5
"""Steps between the windows of the source, a tenth of a second."""


class TimeseriesDemo(DemoScenario):
    """Gestures in one of three channels, at a random time."""

    noun = "gestures"
    evidence = "gesture"
    labels = GESTURES
    # 1,600 windows make a one-point bound significant.
    sizes = DemoSizes(train=100, val=80, unseen=400, teacher_epochs=24, student_epochs=40, frames=200)
    live_source = "synthetic:"
    next_data = "kdedge train DATA --model series:wide --window 2s"

    def write(self, root: Path, train: int, val: int, seed: int) -> dict[str, Masks]:
        """Write gestures as CSV files; see `DemoScenario.write`."""
        masks: dict[str, Masks] = {}
        for side, count in (("train", train), ("val", val)):
            for number, label in enumerate(GESTURES):
                (root / side / label).mkdir(parents=True)
                generator = np.random.default_rng((seed, side == "val", number))
                for index in range(count):
                    gesture = render_gesture(label, generator)
                    name = f"{side}/{label}/{index:04d}.csv"
                    (root / name).write_text(_table(gesture.values), encoding="utf-8")
                    if side == "val":
                        masks[name] = gesture.mask
        return masks

    def teacher(self, data: Path) -> TrainConfig:
        """Return the options of the wide network."""
        return TrainConfig(str(data), "series:wide", batch_size=_BATCH, epochs=self.sizes.teacher_epochs)

    def student(self, data: Path, teacher: Path) -> TrainConfig:
        """Return the options of the small network."""
        return TrainConfig(
            str(data),
            "series:small",
            teacher=(str(teacher),),
            batch_size=_BATCH,
            epochs=self.sizes.student_epochs,
            recipe="default",
        )

    def source(self, out: Path) -> SyntheticSeries:
        """Create a synthetic sensor."""
        return SyntheticSeries(hop=_HOP, frames=self.sizes.frames, seed=7)


def _table(values: Floats) -> str:
    """Return a window as CSV with the time in seconds."""
    titles = ("time", *(f"{name} [{unit}]" for name, unit in zip(CHANNELS, UNITS, strict=True)))
    rows = (f"{step / RATE_HZ:g},{','.join(f'{value:.4f}' for value in values[step])}" for step in range(LENGTH))
    return "\n".join((",".join(titles), *rows)) + "\n"


TIMESERIES = TimeseriesDemo()

"""Demonstration on rendered sounds with exact masks of pitch and time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from kdedge.config.train_config import TrainConfig
from kdedge.demo.demo_scenario import DemoScenario, DemoSizes, Masks
from kdedge.modalities.audio_defaults import make_audio_input
from kdedge_runtime.sources.source import Frame, GroundTruth
from kdedge_runtime.util.arrays import Floats

__all__ = ["AUDIO", "RenderedSound", "render_sound"]

_LABELS = ("beep", "click", "fall", "hiss", "rise")
_RATE_HZ, _SECONDS = 8_000, 1.0
_NOISE = 0.003
"""Level of the noise below every sound, relative to full scale."""
_LOUD = 4.0
"""Range of log energies below the loudest position that belongs to the mask: 17 dB."""
_BATCH = 32
_SPEC = make_audio_input(_RATE_HZ, _SECONDS)


@dataclass(frozen=True)
class RenderedSound:
    """Sound with the place of its evidence."""

    values: Floats
    """PCM float32 `[S]`."""
    mask: Masks
    """True where the event is audible, mel bands × frames, lowest band first."""


def render_sound(label: str, rng: np.random.Generator) -> RenderedSound:
    """Draw an event of a class at a random time, pitch and level, above faint noise."""
    times = np.arange(round(_RATE_HZ * _SECONDS)) / _RATE_HZ
    center, half = rng.uniform(0.2, 0.8), rng.uniform(0.06, 0.12)
    low, high = rng.uniform(300, 900), rng.uniform(1_500, 3_000)
    place = np.clip((times - center + half) / (2 * half), 0, 1)
    if label == "hiss":
        event = rng.normal(0, 0.4, times.shape)
    elif label == "click":
        event = (np.arange(len(times)) % round(_RATE_HZ / rng.uniform(30, 60)) == 0).astype(np.float64)
    else:
        start, end = {"beep": (low, low), "rise": (low, high), "fall": (high, low)}[label]
        event = np.sin(2 * np.pi * np.cumsum(start + (end - start) * place) / _RATE_HZ)
    event *= np.exp(-(((times - center) / half) ** 4)) * rng.uniform(0.1, 0.8)
    energies = _SPEC.features(event.astype(np.float32))
    values = event + rng.normal(0, _NOISE, times.shape)
    return RenderedSound(np.clip(values, -1, 1).astype(np.float32), energies > energies.max() - _LOUD)


class AudioDemo(DemoScenario):
    """Five kinds of events at a random time."""

    noun = "sounds"
    evidence = "event"
    labels = _LABELS
    # 1,500 windows make a one-point bound significant.
    sizes = DemoSizes(train=100, val=40, unseen=300, teacher_epochs=5, student_epochs=8, frames=120)
    live_source = "mic:"
    next_data = "kdedge train DATA --model resnet20"

    def write(self, root: Path, train: int, val: int, seed: int) -> dict[str, Masks]:
        """Write sounds as wav files; see `DemoScenario.write`."""
        masks: dict[str, Masks] = {}
        for side, count in (("train", train), ("val", val)):
            for number, label in enumerate(_LABELS):
                (root / side / label).mkdir(parents=True)
                generator = np.random.default_rng((seed, side == "val", number))
                for index in range(count):
                    sound = render_sound(label, generator)
                    name = f"{side}/{label}/{index:04d}.wav"
                    (root / name).write_bytes(_SPEC.encode_sample(sound.values))
                    if side == "val":
                        masks[name] = sound.mask
        return masks

    def teacher(self, data: Path) -> TrainConfig:
        """Return the options of a residual network of 0.17 M parameters."""
        return TrainConfig(str(data), "small:resnet14", batch_size=_BATCH, epochs=self.sizes.teacher_epochs)

    def student(self, data: Path, teacher: Path) -> TrainConfig:
        """Return the options of a residual network of 0.08 M parameters."""
        return TrainConfig(
            str(data),
            "small:resnet8",
            teacher=(str(teacher),),
            batch_size=_BATCH,
            epochs=self.sizes.student_epochs,
            recipe="default",
        )

    def source(self, out: Path) -> "_RenderedSounds":
        """Create a source of rendered windows."""
        return _RenderedSounds(self.sizes.frames)


class _RenderedSounds:
    """Source of windows with one event each, one after another."""

    live, dropped, unreadable, reconnects = False, 0, 0, 0
    fps: float | None = 1 / _SECONDS
    paths: tuple[Path, ...] = ()
    name = "rendered sounds"

    def __init__(self, frames: int) -> None:
        self.expected: int | None = frames

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        rng = np.random.default_rng(7)
        for index in range(self.expected or 0):
            label = _LABELS[int(rng.integers(len(_LABELS)))]
            start = index * _SECONDS
            sound, truth = render_sound(label, rng).values, GroundTruth(label)
            yield Frame(index, sound, time.monotonic(), f"sound-{index:04d}", truth, (start, start + _SECONDS))


AUDIO = AudioDemo()

"""Rendered bursts of sound in class folders: a low tone, a high tone or noise, at a random time."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from kdedge_runtime.util.arrays import Floats

RATE_HZ = 4_000
SECONDS = 1.0
CLASSES = ("high", "low", "noise")
_HERTZ = {"high": (1_200, 1_500), "low": (250, 450)}


def burst(label: str, rng: np.random.Generator, at_s: float | None = None, seconds: float = SECONDS) -> Floats:
    """Synthesize a burst of 0.1 s above faint noise."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    center = rng.uniform(0.1, seconds - 0.1) if at_s is None else at_s
    if label == "noise":
        tone = rng.normal(0, 0.4, times.shape)
    else:
        tone = np.sin(2 * np.pi * rng.uniform(*_HERTZ[label]) * times + rng.uniform(0, 6))
    envelope = np.exp(-(((times - center) / 0.05) ** 2)) * rng.uniform(0.1, 0.7)
    return (envelope * tone + rng.normal(0, 0.003, times.shape)).astype(np.float32)


def write_bursts(root: Path, counts: Mapping[str, int]) -> Path:
    """Write a dataset with a number of sounds per class and split."""
    rng = np.random.default_rng(0)
    for side, count in counts.items():
        for label in CLASSES:
            (root / side / label).mkdir(parents=True)
            for number in range(count):
                soundfile.write(root / side / label / f"{number:03}.wav", burst(label, rng), RATE_HZ)
    return root

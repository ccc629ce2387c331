"""Rendered sounds for measurements without data: tones, sweeps, clicks and noises at random times."""

import numpy as np

from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.util.arrays import Floats

__all__ = ["render_sounds"]

_KINDS = 4
_NOISE = 3e-3
"""Level of the noise below every sound, relative to full scale."""


def render_sounds(spec: AudioInput, count: int, rng: np.random.Generator) -> Floats:
    """Draw sounds of four kinds in turn, each at a random time, level and frequency.

    Returns:
        PCM float32 `[count, samples]`.
    """
    return np.stack([_sound(number % _KINDS, spec, rng) for number in range(count)]).astype(np.float32)


def _sound(kind: int, spec: AudioInput, rng: np.random.Generator) -> Floats:
    steps = np.arange(spec.samples)
    center, width = rng.uniform(0.2, 0.8) * spec.samples, rng.uniform(0.03, 0.15) * spec.samples
    envelope = np.exp(-(((steps - center) / width) ** 2)) * rng.uniform(0.1, 0.8)
    low, high = np.exp(rng.uniform(np.log(max(spec.fmin_hz, 100.0)), np.log(spec.fmax_hz * 0.9), 2))
    if kind == 0:
        tone = np.sin(2 * np.pi * low * steps / spec.rate_hz)
    elif kind == 1:
        pitch = low + (high - low) * steps / spec.samples
        tone = np.sin(2 * np.pi * np.cumsum(pitch) / spec.rate_hz)
    elif kind == 2:
        tone = np.where(steps % max(2, round(spec.rate_hz / rng.uniform(20, 200))) == 0, 1.0, 0.0)
    else:
        tone = rng.uniform(-1, 1, spec.samples)
    return np.asarray(np.clip(envelope * tone + _NOISE * rng.normal(size=spec.samples), -1, 1))

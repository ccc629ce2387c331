"""Rendered sounds for measurements without data: events at random times, and textures that belong to no class."""

import numpy as np

from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.util.arrays import Floats

__all__ = ["render_sound_textures", "render_sounds"]

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


def render_sound_textures(spec: AudioInput, count: int, rng: np.random.Generator) -> Floats:
    """Draw chords, modulated brown noise and random telegraph signals that fill the window.

    Returns:
        PCM float32 `[count, samples]`.
    """
    return np.stack([_texture(number % 3, spec, rng) for number in range(count)]).astype(np.float32)


def _texture(kind: int, spec: AudioInput, rng: np.random.Generator) -> Floats:
    times = np.arange(spec.samples) / spec.rate_hz
    if kind == 0:
        pitches = rng.uniform(max(spec.fmin_hz, 80.0), 0.8 * spec.fmax_hz, (rng.integers(4, 9), 1))
        wave = np.sin(2 * np.pi * (pitches * times + rng.uniform(size=pitches.shape))).sum(axis=0)
    elif kind == 1:
        walk = rng.normal(size=spec.samples).cumsum()
        wave = (walk - walk.mean()) * (1.1 + np.sin(2 * np.pi * (rng.uniform(2, 12) * times + rng.uniform())))
    else:
        wave = np.where(rng.uniform(size=spec.samples) < rng.uniform(0.002, 0.05), -1.0, 1.0).cumprod()
    return np.asarray(rng.uniform(0.05, 0.9) * wave / np.abs(wave).max())

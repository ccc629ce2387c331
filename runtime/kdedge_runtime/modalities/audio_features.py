"""Log-mel features of sounds in numpy, and the kernels that the graph shares: mel filters and a windowed DFT.

The scale is Slaney's (linear below 1 kHz, logarithmic above), and each filter has the area of its width in hertz, as in
librosa's defaults. Frames are `n_fft` samples long, with a periodic Hann window of
`win_length` samples at their center. The sound is padded with
`(n_fft - frame_hop) / 2` zeros on both sides, so that frame `i` is centered on samples `i * frame_hop` to
`(i + 1) * frame_hop`.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.util.arrays import Floats

__all__ = ["MelScale", "dft_kernels", "hann_window", "log_mel", "mel_edges", "mel_filters", "side_padding", "stft"]

_LINEAR_HZ = 200 / 3
"""Width of a mel below 1 kHz, in hertz."""
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27
"""Logarithm of the ratio of neighboring mels above 1 kHz."""


class MelScale(NamedTuple):
    """Parameters of log-mel features."""

    rate_hz: int
    n_fft: int
    """Length of a frame and of its Fourier transform in samples, even."""
    win_length: int
    """Length of the Hann window at the center of a frame in samples, even and at most `n_fft`."""
    frame_hop: int
    """Interval between frames in samples, even and at most `n_fft`."""
    mel_bands: int
    fmin_hz: float
    fmax_hz: float
    log_offset: float
    """Value added to the energy of a band before the logarithm, which limits the features of silence."""
    least_peak: float
    """Sounds are divided by their peak, or by this value if it is larger; 1 keeps their level."""


def hann_window(scale: MelScale) -> Floats:
    """Return the periodic Hann window of a frame with zeros on both sides, float64 `[n_fft]`."""
    length = scale.win_length
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return np.pad(window, (scale.n_fft - length) // 2)


def side_padding(scale: MelScale) -> int:
    """Return the number of zeros on each side of a sound."""
    return (scale.n_fft - scale.frame_hop) // 2


def mel_edges(scale: MelScale) -> NDArray[np.float64]:
    """Return the edges of the filters in hertz, float64 `[mel_bands + 2]`: filter `i` lies between `i` and `i + 2`."""
    return _hz(np.linspace(_mel(scale.fmin_hz), _mel(scale.fmax_hz), scale.mel_bands + 2))


@lru_cache(maxsize=8)
def mel_filters(scale: MelScale) -> Floats:
    """Return the mel filter bank, float64 `[mel_bands, n_fft / 2 + 1]`, read-only."""
    bins = np.arange(scale.n_fft // 2 + 1) * scale.rate_hz / scale.n_fft
    edges = mel_edges(scale)
    low, center, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (center - low), (high - bins) / (high - center)
    filters: Floats = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    filters.setflags(write=False)
    return filters


def dft_kernels(scale: MelScale) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the windowed Fourier basis of the bins that a filter uses.

    Returns:
        Cosines, then sines, float64 `[2 * bins, n_fft]`, and the indices of these bins.
    """
    used = np.flatnonzero(mel_filters(scale).any(axis=0))
    phase = 2 * np.pi * (used[:, None] * np.arange(scale.n_fft) % scale.n_fft) / scale.n_fft
    return np.concatenate([np.cos(phase), np.sin(phase)]) * hann_window(scale), used


def stft(sound: NDArray[np.float64], scale: MelScale) -> NDArray[np.complex128]:
    """Compute the short-time Fourier transform of PCM `[S]`, `[frames, n_fft / 2 + 1]`."""
    padded = np.pad(sound, side_padding(scale))
    frames = np.lib.stride_tricks.sliding_window_view(padded, scale.n_fft)[:: scale.frame_hop]
    return np.asarray(np.fft.rfft(frames * hann_window(scale), axis=1))


def log_mel(sound: Floats, scale: MelScale) -> Floats:
    """Compute log-mel features, float32 `[mel_bands, frames]`, lowest band first.

    Args:
        sound: PCM `[S]` at the rate of the scale.
        scale: parameters of the features.
    """
    level = max(float(np.abs(sound).max(initial=0)), scale.least_peak)
    power = np.abs(stft(sound.astype(np.float64) / level, scale)) ** 2
    return np.asarray(np.log(mel_filters(scale) @ power.T + scale.log_offset), dtype=np.float32)


def _mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return float(_BREAK_HZ / _LINEAR_HZ + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * _LINEAR_HZ
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_HZ / _LINEAR_HZ))
    return np.where(linear < _BREAK_HZ, linear, logarithmic)

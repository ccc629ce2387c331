"""Masks of sounds over mel bands and frames, applied by a short-time Fourier transform and its inverse."""

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.modalities.audio_features import MelScale, hann_window, mel_filters, side_padding, stft
from kdedge_runtime.util.arrays import Floats

__all__ = ["blend_sounds"]

_MIN_OVERLAP = 1e-3
"""Smallest sum of squared windows that is divided by."""


def blend_sounds(sound: Floats, hidden: Floats, keep: Floats, scale: MelScale) -> Floats:
    """Blend two sounds at each frequency and time.

    The mask of a Fourier bin is the weighted mean of those of the bands that use it. Bins without a band take the mask
    of the nearest one.

    Args:
        sound: PCM `[S]`, shown where the mask is 1.
        hidden: PCM `[S]`, shown where the mask is 0.
        keep: masks `[n, mel_bands, frames]` in [0, 1].
        scale: parameters of bands and frames.

    Returns:
        PCM float32 `[n, S]`.
    """
    difference = stft(sound.astype(np.float64) - hidden, scale)
    weights = _bin_weights(scale)
    masks = np.broadcast_to(keep.astype(np.float64), (len(keep), scale.mel_bands, len(difference)))
    shown = [_istft(difference * (weights @ mask).T, len(sound), scale) for mask in masks]
    return (hidden + np.stack(shown)).astype(np.float32)


def _bin_weights(scale: MelScale) -> NDArray[np.float64]:
    """Return the share of each band in each Fourier bin, `[bins, mel_bands]`, with rows that sum to 1."""
    filters = mel_filters(scale).T
    used = np.flatnonzero(filters.any(axis=1))
    nearest = used[np.abs(np.arange(len(filters))[:, None] - used).argmin(axis=1)]
    weights = filters[nearest]
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _istft(spectra: NDArray[np.complex128], samples: int, scale: MelScale) -> NDArray[np.float64]:
    """Add overlapping frames, divided by the sum of their squared windows."""
    window, padding = hann_window(scale), side_padding(scale)
    total, overlap = np.zeros(samples + 2 * padding), np.zeros(samples + 2 * padding)
    for index, frame in enumerate(np.fft.irfft(spectra, n=scale.n_fft, axis=1)):
        start = index * scale.frame_hop
        total[start : start + scale.n_fft] += frame * window
        overlap[start : start + scale.n_fft] += window**2
    whole: NDArray[np.float64] = total / np.maximum(overlap, _MIN_OVERLAP)
    return whole[padding : padding + samples]

"""Audio at export: log-mel features in the graph, corruptions, and thumbnails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kdedge_export.html.thumbnails import at_display_size, overlaid
from kdedge_export.modalities.export_modality import Corruption, ExportModality
from kdedge_export.modalities.rendered_sounds import render_sound_textures, render_sounds
from kdedge_runtime.drawing.spectrogram import gray_spectrogram
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.util.arrays import Floats, Pixels

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["AUDIO", "AudioExport"]


@dataclass(frozen=True)
class AudioExport(ExportModality):
    """Audio at export."""

    spec: AudioInput | None = None
    """Input whose features are drawn; None before `for_input`."""

    def for_input(self, spec: AudioInput) -> AudioExport:
        """Return the modality that draws the features of an input."""
        return AudioExport(spec)

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        """White noise, gain, clipping and shifts in time in two severities each."""
        return {
            "noise, SNR 20 dB": partial(_noise, snr_db=20),
            "noise, SNR 10 dB": partial(_noise, snr_db=10),
            "gain − 12 dB": partial(_gain, decibels=-12),
            "gain + 6 dB": partial(_gain, decibels=6),
            "clipped at 50% of the peak": partial(_clip, share=0.5),
            "clipped at 20% of the peak": partial(_clip, share=0.2),
            "5% later": partial(_shift, share=0.05),
            "10% later": partial(_shift, share=0.1),
        }

    def front_end(self, spec: AudioInput) -> nn.Module:
        """Return the log-mel features; see `LogMel`."""
        from kdedge_export.modalities.log_mel import LogMel

        return LogMel(spec)

    def example(self, spec: AudioInput) -> Tensor:
        """Return normally distributed features `[1, 3, mel_bands, frames]` with equal channels."""
        import torch

        from kdedge_export.modalities.log_mel import CHANNELS

        features = torch.randn(1, 1, spec.mel_bands, spec.frames, generator=torch.Generator().manual_seed(0))
        return features.repeat(1, CHANNELS, 1, 1)

    def random_samples(self, spec: AudioInput, count: int, rng: np.random.Generator) -> Floats:
        """Draw white noise of different levels, from silence to full scale."""
        levels = 10 ** rng.uniform(-4, 0, (count, 1))
        return (levels * rng.uniform(-1, 1, (count, *spec.shape))).astype(np.float32)

    def smoothed(self, sample: Floats) -> Floats:
        """Return silence, since a sound without details has no energy that differs between bands or times."""
        return np.zeros_like(sample)

    @property
    def mirrored_axes(self) -> Sequence[tuple[int, int]]:
        """Time: reversed sounds have reversed features. Frequencies cannot be mirrored."""
        return ((1, 2),)

    def display_samples(self, spec: AudioInput, count: int) -> Floats:
        """Draw rendered sounds; see `kdedge_export.modalities.rendered_sounds`."""
        return render_sounds(spec, count, np.random.default_rng(0))

    drawn_name = "chords, brown noise and random signals"

    def unfamiliar_samples(self, spec: AudioInput, count: int) -> Floats:
        """Draw textures; see `kdedge_export.modalities.rendered_sounds`."""
        return render_sound_textures(spec, count, np.random.default_rng(0))

    def thumbnail(self, sample: Floats, maps: Sequence[Floats] = ()) -> Pixels:
        """Draw a spectrogram with low frequencies at the bottom."""
        return at_display_size(self._spectrogram(sample))

    def overlay(self, sample: Floats, saliency_map: Floats, shift: tuple[float, float]) -> Pixels:
        """Draw a spectrogram with its heat map."""
        return overlaid(self._spectrogram(sample), saliency_map[::-1], (shift[0], -shift[1]))

    def _spectrogram(self, sample: Floats) -> Pixels:
        assert self.spec is not None, "drawings are those of an input"
        return gray_spectrogram(self.spec.features(sample))


def _noise(sample: Floats, number: int, snr_db: float) -> Floats:
    noise = np.random.default_rng((0, number)).normal(size=sample.shape)
    power = float(np.mean(sample.astype(np.float64) ** 2))
    noisy: Floats = (sample + noise * np.sqrt(power / 10 ** (snr_db / 10))).astype(np.float32)
    return noisy


def _gain(sample: Floats, _number: int, decibels: float) -> Floats:
    louder: Floats = np.clip(sample * np.float32(10 ** (decibels / 20)), -1, 1)
    return louder


def _clip(sample: Floats, _number: int, share: float) -> Floats:
    limit = share * np.abs(sample).max()
    return np.clip(sample, -limit, limit).astype(np.float32)


def _shift(sample: Floats, _number: int, share: float) -> Floats:
    return np.roll(sample, round(share * len(sample)))


AUDIO = AudioExport()

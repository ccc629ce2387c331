"""Augmentation of sounds: shift, speed, gain, noise, background, masks of times and bands, and mixing."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from kdedge.config.augmentation_settings import Augmentation
from kdedge.training.augmentation.mixing import draw_beta
from kdedge.training.augmentation.pixel_noise import uniform_noise
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.modalities.audio_features import mel_edges

__all__ = ["AudioAugmenter", "AudioMixing", "AudioParams"]

_SPEED = 1.3
"""Largest change of speed at full geometric strength."""
_GAIN_DB = 12.0
"""Largest gain at full photometric strength, in dB."""
_SNR_DB = (40.0, 10.0)
"""Signal-to-noise ratio of white noise without and with full photometric strength, in dB."""
_BACKGROUND_SNR_DB = (5.0, 25.0)
"""Range of the signal-to-noise ratio of background recordings, in dB."""
_MASKED = 0.2
"""Largest share of the time, or of the mel bands, that a mask covers."""
_MIN_POWER = 1e-12


class AudioParams(NamedTuple):
    """Augmentation parameters, one row per sound."""

    shift: Tensor
    """Delay in samples, int64 `[n]`."""
    speed: Tensor
    """Speed, float32 `[n]`; 1 without a change."""
    gain: Tensor
    """Factor, float32 `[n]`."""
    noise: Tensor
    """Amplitude of white noise relative to the sound, float32 `[n]`; 0 for none."""
    noise_keys: Tensor
    """Hash keys of the noise, int16 `[n]`."""
    background: Tensor
    """Amplitude of the background relative to the sound, float32 `[n]`; 0 for none."""
    background_start: Tensor
    """Position in the background recordings in [0, 1), float32 `[n]`."""
    times: Tensor
    """First and last sample of a silenced stretch (exclusive), int64 `[n, 2]`; empty for none."""
    bands_hz: Tensor
    """Lowest and highest frequency of a silenced band in hertz, float32 `[n, 2]`; empty for none."""

    def to(self, device: torch.device) -> "AudioParams":
        """Copy the parameters to a device."""
        return AudioParams(*(part.to(device) for part in self))

    def take(self, index: Tensor) -> "AudioParams":
        """Select the rows of a batch; `index` is int64 `[n]` on the same device."""
        return AudioParams(*(part[index] for part in self))


class AudioMixing(NamedTuple):
    """Mixing parameters, one row per sound."""

    stretch: Tensor
    """First and last sample of the mixed stretch (exclusive), int64 `[n, 2]`; the whole sound for mixup."""
    weight: Tensor
    """Weight of the partner in the stretch, float32 `[n]` in [0, 1]; 1 for CutMix."""


@dataclass(frozen=True)
class AudioAugmenter:
    """Augmentation of PCM float32 `[n, S]`; an `Augmenter`.

    The settings of images apply as follows. `shift` moves the sound in time, around the end of the window. `geometry`
    changes its speed and pitch by up to a factor of 1.3. `photometric` changes the gain by up to 12 dB, and adds white
    noise to half of the sounds, at a signal-to-noise ratio of 10 to 40 dB. `background` adds recordings to half of the
    sounds at 5 to 25 dB. `erase` is the probability of a silenced stretch of time and of a silenced band, each up to a
    fifth of the whole, as in SpecAugment (Park et al., Interspeech 2019); the band is removed by a filter. `mixup` is
    unchanged, and `cutmix` exchanges a stretch of time. `flip` does not apply, since sounds have a direction.
    """

    settings: Augmentation
    spec: AudioInput

    @cached_property
    def background(self) -> Tensor:
        """Background recordings one after another, float32 `[B]`, at least as long as a window."""
        from kdedge.data.readers.background_sounds import load_background

        return torch.from_numpy(load_background(self.settings.background, self.spec))

    @cached_property
    def _by_device(self) -> dict[torch.device, Tensor]:
        """Background recordings on the devices that were used."""
        return {}

    def draw(self, count: int, generator: torch.Generator) -> AudioParams:
        """Draw the parameters of every sound; see `Augmenter`."""
        spec, settings, device = self.spec, self.settings, generator.device

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, generator=generator, device=device)

        def chosen(probability: float) -> Tensor:
            return (uniform(0, 1) < probability).float()

        most = round(settings.shift * spec.samples)
        shift = torch.randint(-most, most + 1, (count,), generator=generator, device=device)
        speed = (settings.geometry * math.log(_SPEED) * uniform(-1, 1)).exp()
        gain = _amplitude(settings.photometric * _GAIN_DB * uniform(-1, 1))
        quiet, loud = _SNR_DB
        noise = _amplitude(-uniform(quiet + settings.photometric * (loud - quiet), quiet))
        noise *= chosen(0.5 if settings.photometric else 0.0)
        keys = torch.randint(-(2**15), 2**15, (count,), generator=generator, device=device, dtype=torch.int16)
        background = _amplitude(-uniform(*_BACKGROUND_SNR_DB)) * chosen(0.5 if settings.background else 0.0)
        start, length = uniform(0, 1), uniform(0, _MASKED) * chosen(settings.erase)
        times = torch.stack((start * (1 - length), start * (1 - length) + length), dim=1) * spec.samples
        edges = torch.tensor(mel_edges(spec.scale), dtype=torch.float32, device=device)
        place, wide = uniform(0, 1), uniform(0, _MASKED) * chosen(settings.erase)
        band = (torch.stack((place * (1 - wide), place * (1 - wide) + wide), dim=1) * spec.mel_bands).round().long()
        return AudioParams(
            shift, speed, gain, noise, keys, background, uniform(0, 1), times.round().long(), edges[band]
        )

    def apply(self, samples: Tensor, params: AudioParams) -> Tensor:
        """Augment sounds; see `Augmenter`."""
        settings = self.settings
        sounds = self._moved(samples, params) * params.gain[:, None]
        power = sounds.square().mean(dim=1).clamp(min=_MIN_POWER).sqrt()[:, None]
        if settings.background:
            sounds = sounds + params.background[:, None] * power * self._backgrounds(params.background_start)
        if settings.photometric:
            sounds = sounds + params.noise[:, None] * power * self._noise(params.noise_keys)
        if settings.erase:
            sounds = self._without_band(sounds, params.bands_hz)
            steps = torch.arange(self.spec.samples, device=samples.device)
            inside = (steps >= params.times[:, :1]) & (steps < params.times[:, 1:])
            sounds = torch.where(inside, 0.0, sounds)
        return sounds.clamp(-1, 1)

    def draw_mixing(self, count: int, generator: torch.Generator) -> AudioMixing:
        """Draw the mixing parameters of a batch; with both mixup and CutMix enabled, each has probability 1/2."""
        settings, length, device = self.settings, self.spec.samples, generator.device
        whole = torch.tensor([0, length], device=device).expand(count, 2)
        weight = draw_beta(settings.mixup or 1.0, count, generator)
        wide = draw_beta(settings.cutmix or 1.0, count, generator) * length
        start = torch.rand(count, generator=generator, device=device) * (length - wide)
        stretch = torch.stack((start.round(), (start + wide).round()), dim=1).long()
        share = 0.0 if not settings.cutmix else 0.5 if settings.mixup else 1.0
        is_cut = torch.rand(count, generator=generator, device=device) < share
        return AudioMixing(torch.where(is_cut[:, None], stretch, whole), torch.where(is_cut, 1.0, weight))

    def blend(self, samples: Tensor, targets: Tensor, mixing: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Mix sounds with their predecessors: as a whole for mixup, and in a stretch of time for CutMix."""
        stretch, weight = mixing
        steps = torch.arange(self.spec.samples, device=samples.device)
        inside = (steps >= stretch[:, :1]) & (steps < stretch[:, 1:])
        partners, own = samples[:-1], samples[1:]
        mixed = torch.where(inside, torch.lerp(own, partners, weight[:, None]), own)
        share = weight * (stretch[:, 1] - stretch[:, 0]) / self.spec.samples
        return mixed, targets[1:] + share[:, None] * (targets[:-1] - targets[1:])

    def _moved(self, samples: Tensor, params: AudioParams) -> Tensor:
        """Shift sounds, and change their speed by linear interpolation if the settings do."""
        length = self.spec.samples
        steps = torch.arange(length, device=samples.device) - params.shift[:, None]
        if not self.settings.geometry:
            return samples.gather(1, steps % length)
        center = length / 2
        place = center + (steps - center) * params.speed[:, None]
        lower = place.floor()
        here, there = (samples.gather(1, (lower + offset).long() % length) for offset in (0, 1))
        return torch.lerp(here, there, place - lower)

    def _noise(self, keys: Tensor) -> Tensor:
        """Return nearly normal noise of standard deviation 1, float32 `[n, S]`, hashed from the keys."""
        length = self.spec.samples
        rows = math.isqrt(length) + 1
        # The sum of three uniform numbers is nearly normal.
        noise = uniform_noise(keys, rows, -(-length // rows)).sum(dim=1) / math.sqrt(3)
        return noise.flatten(1)[:, :length]

    def _backgrounds(self, start: Tensor) -> Tensor:
        """Cut stretches of the background recordings, float32 `[n, S]` of root mean square 1."""
        if start.device not in self._by_device:
            self._by_device[start.device] = self.background.to(start.device)
        recorded = self._by_device[start.device]
        first = (start * (len(recorded) - self.spec.samples)).long()
        cut = recorded[first[:, None] + torch.arange(self.spec.samples, device=start.device)]
        return cut / cut.square().mean(dim=1, keepdim=True).clamp(min=_MIN_POWER).sqrt()

    def _without_band(self, sounds: Tensor, bands_hz: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(sounds)
        hertz = torch.arange(spectrum.shape[1], device=sounds.device) * (self.spec.rate_hz / self.spec.samples)
        inside = (hertz >= bands_hz[:, :1]) & (hertz < bands_hz[:, 1:])
        rest: Tensor = torch.fft.irfft(spectrum.masked_fill(inside, 0), n=self.spec.samples)
        return rest


def _amplitude(decibels: Tensor) -> Tensor:
    return torch.exp(decibels * (math.log(10) / 20))

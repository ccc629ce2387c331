"""Augmentation of time series: jitter, scaling, shift, window warping, erasing and mixing."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kdedge.config.augmentation_settings import Augmentation
from kdedge.training.augmentation.mixing import draw_beta
from kdedge.training.augmentation.pixel_noise import uniform_noise
from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["SeriesMixing", "SeriesParams", "TimeseriesAugmenter"]

_GAIN = 1.5
"""Largest factor of a channel at full photometric strength."""
_JITTER = 0.3
"""Largest standard deviation of the jitter at full photometric strength, in standard deviations of the channel."""
_WARP = 2.0
"""Largest change of speed at full geometric strength."""
_WARPED = (0.1, 0.5)
"""Range of the length of a warped stretch, as a fraction of the window."""
_ERASED = (0.02, 0.33)
"""Range of the length of an erased stretch, as in Random Erasing."""


class SeriesParams(NamedTuple):
    """Augmentation parameters, one row per window."""

    shift: Tensor
    """Delay in steps, float32 `[n]`."""
    warp: Tensor
    """Start, end and logarithm of the speed of a warped stretch, float32 `[n, 3]`; start and end in [0, 1]."""
    gain: Tensor
    """Factor of every channel, float32 `[n, C]`."""
    jitter: Tensor
    """Standard deviation of the noise in standard deviations of the channel, float32 `[n]`."""
    noise_keys: Tensor
    """Hash keys of the noise, int16 `[n]`."""
    erased: Tensor
    """First and last step of an erased stretch (exclusive), int64 `[n, 2]`; empty for none."""
    is_erased: Tensor
    """Channels of the erased stretch, bool `[n, C]`."""
    mean: Tensor
    """Mean of every channel, float32 `[n, C]`; here, because a CUDA graph cannot copy it to the device."""
    std: Tensor
    """Standard deviation of every channel, float32 `[n, C]`."""

    def to(self, device: torch.device) -> "SeriesParams":
        """Copy the parameters to a device."""
        return SeriesParams(*(part.to(device) for part in self))

    def take(self, index: Tensor) -> "SeriesParams":
        """Select the rows of a batch; `index` is int64 `[n]` on the same device."""
        return SeriesParams(*(part[index] for part in self))


class SeriesMixing(NamedTuple):
    """Mixing parameters, one row per window."""

    stretch: Tensor
    """First and last step of the mixed stretch (exclusive), int64 `[n, 2]`; the whole window for mixup."""
    weight: Tensor
    """Weight of the partner in the stretch, float32 `[n]` in [0, 1]; 1 for CutMix."""


@dataclass(frozen=True)
class TimeseriesAugmenter:
    """Augmentation of windows float32 `[n, T, C]`; an `Augmenter`.

    The settings of images apply as follows: `shift` delays or advances the window, repeating its edge. `geometry` warps
    a stretch, which then runs faster or slower (window warping, Le Guennec et al. 2016). `photometric` scales every
    channel and adds noise (scaling and jitter, Um et al. 2017). `erase` sets some channels to their means during a
    stretch. `mixup` is unchanged, and `cutmix` exchanges a stretch of all channels. `flip` does not apply, since a
    series has a direction.
    """

    settings: Augmentation
    spec: TimeseriesInput

    def draw(self, count: int, generator: torch.Generator) -> SeriesParams:
        """Draw the parameters of every window; see `Augmenter`."""
        length, channels = self.spec.shape
        device, strength = generator.device, self.settings.photometric

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(shape, generator=generator, device=device)

        def stretch(span: tuple[float, float]) -> tuple[Tensor, Tensor]:
            wide = uniform(*span, count)
            start = uniform(0, 1, count) * (1 - wide)
            return start, start + wide

        most = round(self.settings.shift * length)
        shift = torch.randint(-most, most + 1, (count,), generator=generator, device=device).float()
        start, end = stretch(_WARPED)
        speed = self.settings.geometry * math.log(_WARP) * uniform(-1, 1, count)
        gain = (strength * math.log(_GAIN) * uniform(-1, 1, count, channels)).exp()
        jitter = strength * _JITTER * uniform(0, 1, count)
        keys = torch.randint(-(2**15), 2**15, (count,), generator=generator, device=device, dtype=torch.int16)
        first, last = (edge * length for edge in stretch(_ERASED))
        erased = torch.stack((first.floor(), last.ceil()), dim=1)
        erased *= (uniform(0, 1, count) < self.settings.erase)[:, None]
        is_erased = uniform(0, 1, count, channels) < 0.5
        is_erased |= torch.arange(channels, device=device) == (uniform(0, 1, count) * channels).floor()[:, None]
        mean, std = (torch.tensor(each, device=device).expand(count, -1) for each in (self.spec.mean, self.spec.std))
        warp = torch.stack((start, end, speed), dim=1)
        return SeriesParams(shift, warp, gain, jitter, keys, erased.long(), is_erased, mean, std)

    def apply(self, samples: Tensor, params: SeriesParams) -> Tensor:
        """Augment windows; see `Augmenter`."""
        series = self._move(samples, params)
        mean, std = params.mean[:, None], params.std[:, None]
        if self.settings.photometric:
            length, channels = self.spec.shape
            # The sum of three uniform numbers is nearly normal.
            noise = uniform_noise(params.noise_keys, length, channels).sum(dim=1) / math.sqrt(3)
            series = mean + params.gain[:, None] * (series - mean) + params.jitter[:, None, None] * noise * std
        if self.settings.erase:
            steps = torch.arange(self.spec.length, device=samples.device)
            inside = (steps >= params.erased[:, :1]) & (steps < params.erased[:, 1:])
            series = torch.where(inside[:, :, None] & params.is_erased[:, None], mean, series)
        return series

    def draw_mixing(self, count: int, generator: torch.Generator) -> "SeriesMixing":
        """Draw the mixing parameters of a batch; with both mixup and CutMix enabled, each has probability 1/2."""
        settings, length, device = self.settings, self.spec.length, generator.device
        whole = torch.tensor([0, length], device=device).expand(count, 2)
        mixup = SeriesMixing(whole, draw_beta(settings.mixup or 1.0, count, generator))
        wide = draw_beta(settings.cutmix or 1.0, count, generator) * length
        start = torch.rand(count, generator=generator, device=device) * (length - wide)
        stretch = torch.stack((start.round(), (start + wide).round()), dim=1).long()
        is_cut = torch.rand(count, generator=generator, device=device) * (settings.mixup > 0) < 0.5
        is_cut &= settings.cutmix > 0
        weight = torch.where(is_cut, 1.0, mixup.weight)
        return SeriesMixing(torch.where(is_cut[:, None], stretch, whole), weight)

    def blend(self, samples: Tensor, targets: Tensor, mixing: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Mix windows with their predecessors: as a whole for mixup, and in a stretch of time for CutMix."""
        stretch, weight = mixing
        steps = torch.arange(self.spec.length, device=samples.device)
        inside = (steps >= stretch[:, :1]) & (steps < stretch[:, 1:])
        partners, own = samples[:-1], samples[1:]
        mixed = torch.where(inside[:, :, None], torch.lerp(own, partners, weight[:, None, None]), own)
        share = weight * (stretch[:, 1] - stretch[:, 0]) / self.spec.length
        return mixed, targets[1:] + share[:, None] * (targets[:-1] - targets[1:])

    def _move(self, samples: Tensor, params: SeriesParams) -> Tensor:
        """Delay and warp windows, in one gather without interpolation if nothing is warped."""
        length = self.spec.length
        steps = torch.arange(length, device=samples.device) - params.shift[:, None]
        if not self.settings.geometry:
            index = steps.long().clamp(0, length - 1)
            return samples.gather(1, index[..., None].expand_as(samples))
        place = _warped(steps.clamp(0, length - 1) / (length - 1), params.warp) * (length - 1)
        lower = place.floor().long().clamp(0, length - 2)
        share = (place - lower)[..., None]
        here, there = (samples.gather(1, index[..., None].expand_as(samples)) for index in (lower, lower + 1))
        return torch.lerp(here, there, share)


def _warped(time: Tensor, warp: Tensor) -> Tensor:
    """Map output times to input times in [0, 1]: a stretch of the output runs at another speed, the rest evenly.

    Args:
        time: times float32 `[n, T]` in [0, 1].
        warp: see `SeriesParams.warp`.
    """
    start, end, speed = (column[:, None] for column in warp.unbind(1))
    factor = speed.exp()
    inside = (time.clamp(min=start, max=end) - start) * factor
    before, after = time.clamp(max=start), (time - end).clamp(min=0)
    whole = start + (end - start) * factor + (1 - end)
    return ((before + inside + after) / whole).clamp(0, 1)

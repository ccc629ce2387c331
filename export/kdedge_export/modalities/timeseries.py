"""Time series at export: standardization in the graph, corruptions, and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdedge_export.modalities.export_modality import Corruption, ExportModality
from kdedge_runtime.modalities import Sample
from kdedge_runtime.modalities.timeseries import TimeseriesInput
from kdedge_runtime.util.arrays import Floats, Pixels

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["TIMESERIES", "TimeseriesExport"]

Doubles: TypeAlias = NDArray[np.float64]
_SMOOTHED = 0.2
"""Length of the moving average that hides details, as a fraction of the window."""
_SEED = 0


class TimeseriesExport(ExportModality):
    """Time series at export."""

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        """Noise, gain, drift, a delay and a sensor that stops, relative to the spread of each channel in the window."""
        return {
            "noise, σ = 0.1 of the channel's": partial(_noise, sigma=0.1),
            "noise, σ = 0.3 of the channel's": partial(_noise, sigma=0.3),
            "gain × 0.8": partial(_gain, factor=0.8),
            "gain × 1.25": partial(_gain, factor=1.25),
            "drift of one σ": _drift,
            "delay of 5% of the window": partial(_delay, share=0.05),
            "one channel stops halfway": _stopped,
        }

    def front_end(self, spec: TimeseriesInput) -> nn.Module:
        """Return the standardization; see `Standardize`."""
        from kdedge_export.modalities.standardize import Standardize

        return Standardize(spec)

    def example(self, spec: TimeseriesInput) -> Tensor:
        """Return normally distributed values `[1, 1, channels, length]`."""
        import torch

        return torch.randn(1, 1, len(spec.channels), spec.length, generator=torch.Generator().manual_seed(0))

    def random_samples(self, spec: TimeseriesInput, count: int, rng: np.random.Generator) -> Sample:
        """Draw windows of independent values, normal with the mean and standard deviation of each channel."""
        return _in_units(spec, rng.normal(size=(count, *spec.shape)))

    def smoothed(self, sample: Sample) -> Sample:
        """Return the moving average over a fifth of the window."""
        width = max(1, round(_SMOOTHED * len(sample)) // 2 * 2 + 1)
        padded = np.pad(sample.astype(np.float64), ((width // 2, width // 2), (0, 0)), mode="edge")
        sums = np.concatenate((np.zeros((1, sample.shape[1])), padded.cumsum(axis=0)))
        smooth: Floats = ((sums[width:] - sums[:-width]) / width).astype(np.float32)
        return smooth

    def baseline_maps(self, spec: TimeseriesInput, samples: Sample) -> dict[str, Floats]:
        """Return the distance of every value from the mean of its channel, in standard deviations."""
        deviation = np.abs((samples - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32))
        return {"amplitude": np.ascontiguousarray(deviation.transpose(0, 2, 1), dtype=np.float32)}

    drawn_name = "random walks, square waves and noise"

    def unfamiliar_samples(self, spec: TimeseriesInput, count: int) -> Sample:
        """Draw random walks, square waves and white noise, scaled to the spread of each channel."""
        rng = np.random.default_rng(_SEED)
        steps = np.arange(spec.length)[:, None]
        windows = []
        for number in range(count):
            if number % 3 == 0:
                walk = rng.normal(size=spec.shape).cumsum(axis=0)
                window = (walk - walk.mean(axis=0)) / walk.std(axis=0).clip(1e-6)
            elif number % 3 == 1:
                periods = rng.uniform(4, max(5.0, spec.length / 2), len(spec.channels))
                window = np.sign(np.sin(2 * np.pi * (steps / periods + rng.uniform(size=len(spec.channels)))))
            else:
                window = rng.normal(size=spec.shape)
            windows.append(rng.uniform(0.5, 2.0) * window)
        return _in_units(spec, np.stack(windows))

    def thumbnail(self, sample: Sample, maps: Sequence[Floats] = ()) -> Pixels:
        """Plot the channels without names, each on its own scale."""
        return _plot(sample, None, (0.0, 0.0))

    def overlay(self, sample: Sample, saliency_map: Floats, shift: tuple[float, float]) -> Pixels:
        """Plot the channels with heat behind each of them."""
        return _plot(sample, saliency_map, shift)


def _plot(sample: Sample, saliency_map: Floats | None, shift: tuple[float, float]) -> Pixels:
    from kdedge_runtime.drawing.heatmap import normalize_heatmap, peak
    from kdedge_runtime.drawing.series_plot import draw_series

    names = tuple(str(index + 1) for index in range(sample.shape[1]))
    mean, std = (tuple(map(float, values)) for values in (sample.mean(axis=0), _spread(sample)))
    spec = TimeseriesInput(names, len(sample), mean, std)
    heat = None
    if saliency_map is not None:
        finite = np.nan_to_num(saliency_map, nan=0.0, posinf=0.0, neginf=0.0)
        heat = normalize_heatmap(finite, peak(finite))
    return draw_series(sample, spec, heat, shift=shift)


def _in_units(spec: TimeseriesInput, standardized: Doubles) -> Floats:
    values: Floats = (np.array(spec.mean) + np.array(spec.std) * standardized).astype(np.float32)
    return values


def _spread(sample: Sample) -> Doubles:
    """Return the standard deviation of each channel; 1 for a constant one."""
    std = sample.astype(np.float64).std(axis=0)
    return np.where(std > 0, std, 1.0)


def _noise(sample: Sample, number: int, sigma: float) -> Sample:
    noise = np.random.default_rng((0, number)).normal(size=sample.shape)
    return (sample + sigma * _spread(sample) * noise).astype(np.float32)


def _gain(sample: Sample, _number: int, factor: float) -> Sample:
    return (factor * sample).astype(np.float32)


def _drift(sample: Sample, _number: int) -> Sample:
    return (sample + np.linspace(0, 1, len(sample))[:, None] * _spread(sample)).astype(np.float32)


def _delay(sample: Sample, _number: int, share: float) -> Sample:
    steps = max(1, round(share * len(sample)))
    return np.concatenate((np.repeat(sample[:1], steps, axis=0), sample[:-steps]))


def _stopped(sample: Sample, number: int) -> Sample:
    """Hold the value that a channel has in the middle of the window."""
    stopped = sample.copy()
    half, channel = len(sample) // 2, number % sample.shape[1]
    stopped[half:, channel] = sample[half, channel]
    return stopped


TIMESERIES = TimeseriesExport()

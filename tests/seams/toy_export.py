"""Toy modality and task at export."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from toy_runtime import SignalInput, bits_of, draw, make_signal

from kdedge_export.metrics.scores import Scores
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_export.modalities import Corruption, ExportModality
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Floats, Integers, Pixels


class SignalFrontEnd(nn.Module):
    """Standardize `[N, T, C]`, and move the channels to the front: `[N, C, 1, T]`."""

    def __init__(self, spec: SignalInput) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std), persistent=False)

    def forward(self, sample: Tensor) -> Tensor:
        return ((sample - self.mean) / self.std).permute(0, 2, 1)[:, :, None]


class SignalExport(ExportModality):
    """Signals at export."""

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        return {
            "gain × 0.8": lambda sample, _: (0.8 * sample).astype(np.float32),
            "noise, σ = 0.1": lambda sample, number: (
                sample + np.random.default_rng(number).normal(0, 0.1, sample.shape)
            ).astype(np.float32),
        }

    def front_end(self, spec: SignalInput) -> nn.Module:
        return SignalFrontEnd(spec)

    def example(self, spec: SignalInput) -> Tensor:
        return torch.randn(1, len(spec.mean), 1, spec.length, generator=torch.Generator().manual_seed(0))

    def random_samples(self, spec: SignalInput, count: int, rng: np.random.Generator) -> Sample:
        return rng.normal(size=(count, *spec.shape)).astype(np.float32)

    def smoothed(self, sample: Sample) -> Sample:
        return np.broadcast_to(sample.mean(axis=0), sample.shape).astype(np.float32)

    @property
    def mirrored_axes(self) -> Sequence[tuple[int, int]]:
        return ((1, 2),)

    def display_samples(self, spec: SignalInput, count: int) -> Sample:
        rng = np.random.default_rng(0)
        return np.stack([make_signal(int(rng.integers(1, 8)), rng) for _ in range(count)])

    def thumbnail(self, sample: Sample, maps: Sequence[Floats] = ()) -> Pixels:
        return draw(sample)

    def overlay(self, sample: Sample, saliency_map: Floats, shift: tuple[float, float]) -> Pixels:
        return draw(sample, saliency_map)


class MultilabelMetrics(TaskMetrics):
    """Fractions of the labels that are right, or on which two models agree."""

    def correct(self, logits: Floats, values: Integers) -> Scores:
        right = (logits > 0) == bits_of(values, logits.shape[1])
        return np.where(np.isfinite(logits).all(axis=1), right.mean(axis=1), 0.0)

    def agreement(self, reference: Floats, candidate: Floats) -> Scores:
        finite = np.isfinite(reference).all(axis=1) & np.isfinite(candidate).all(axis=1)
        return np.where(finite, ((reference > 0) == (candidate > 0)).mean(axis=1), 0.0)

    def divergence(self, reference: Floats, candidate: Floats) -> Scores:
        p, q = (1 / (1 + np.exp(-some.astype(np.float64).clip(-30, 30))) for some in (reference, candidate))
        return np.asarray((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=1))


SIGNAL = SignalExport()
MULTILABEL = MultilabelMetrics()

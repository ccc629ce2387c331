"""Calibration: value distributions of tensors on calibration samples, and the ranges to quantize."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from kdedge_export.onnx_graph.session import make_feed, open_session
from kdedge_runtime.util.arrays import Pixels

__all__ = ["METHODS", "Histogram", "RangeMethod", "Range", "clipped_range", "observe", "values_of"]

RangeMethod = Literal["minmax", "percentile-99.999", "percentile-99.99", "entropy"]
METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)
Range = tuple[float, float]

_BINS = 2048
_LEVELS = 255


@dataclass(frozen=True)
class Histogram:
    """Distribution of a tensor's values."""

    low: float
    high: float
    counts: NDArray[np.float64]
    """Counts of equal bins from `low` to `high`."""


def observe(
    model: onnx.ModelProto, tensors: list[str], samples: Pixels, progress: Callable[[int], None]
) -> dict[str, Histogram]:
    """Run an fp32 graph twice over all samples: for the extremes, then for the histograms.

    Args:
        model: the fp32 graph.
        tensors: names of float tensors in it.
        samples: preprocessed samples `[N, …]`.
        progress: called with 1 after each sample of each of the two passes.
    """
    extremes: dict[str, Range] = {}
    for values in values_of(model, tensors, samples, progress):
        for name, value in values.items():
            low, high = extremes.get(name, (np.inf, -np.inf))
            extremes[name] = min(low, float(value.min())), max(high, float(value.max()))
    counts = {name: np.zeros(_BINS) for name in tensors}
    for values in values_of(model, tensors, samples, progress):
        for name, value in values.items():
            low, high = extremes[name]
            width = (high - low) / _BINS or 1.0
            bins = ((value.ravel() - np.float32(low)) * np.float32(1 / width)).astype(np.int32)
            counts[name] += np.bincount(np.clip(bins, 0, _BINS - 1), minlength=_BINS)
    return {name: Histogram(*extremes[name], counts[name]) for name in tensors}


def clipped_range(histogram: Histogram, method: RangeMethod) -> Range:
    """Compute the range of a tensor to quantize; values outside are clipped to its ends.

    - `minmax`: the full range;
    - `percentile-P`: the two tails contain 100 - P percent together;
    - `entropy`: the threshold on absolute values at which the quantized distribution diverges least from the true one
      (Migacz, "8-bit inference with TensorRT", GTC 2017).
    """
    low, high = histogram.low, histogram.high
    if method == "minmax" or not low < high:
        return low, high
    edges = np.linspace(low, high, _BINS + 1)
    if method == "entropy":
        return _least_divergence(histogram, edges)
    tail = (1 - float(method.removeprefix("percentile-")) / 100) / 2
    cumulated = np.cumsum(histogram.counts) / histogram.counts.sum()
    first, last = int(np.searchsorted(cumulated, tail, side="right")), int(np.searchsorted(cumulated, 1 - tail))
    return float(edges[min(first, _BINS - 1)]), float(edges[min(last, _BINS - 1) + 1])


def _least_divergence(histogram: Histogram, edges: NDArray[np.float64]) -> Range:
    reach = max(abs(histogram.low), abs(histogram.high))
    counts = _without_zeros(histogram, edges)
    best, kept = np.inf, (histogram.low, histogram.high)
    for threshold in np.linspace(reach, reach / 16, 121):
        first = int(np.searchsorted(edges, -threshold, side="right")) - 1 if histogram.low < -threshold else 0
        last = int(np.searchsorted(edges, threshold)) if histogram.high > threshold else _BINS
        if last - first < _LEVELS:
            break
        divergence = _divergence(counts, first, last)
        if divergence < best:
            best, kept = divergence, (float(edges[first]), float(edges[last]))
    return kept


def _without_zeros(histogram: Histogram, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Remove the peak that ReLUs leave at 0, which every quantization represents exactly."""
    counts = histogram.counts.copy()
    zero = int(np.searchsorted(edges, 0.0, side="right")) - 1
    if 0 <= zero < _BINS:
        counts[zero] = max(counts[place] for place in (zero - 1, zero + 1) if 0 <= place < _BINS)
    return counts


def _divergence(counts: NDArray[np.float64], first: int, last: int) -> float:
    """Compute the KL divergence of a clipped histogram from that of its quantized values."""
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    level = np.arange(len(inside)) * _LEVELS // len(inside)
    filled = clipped > 0
    mass = np.bincount(level, inside, _LEVELS)
    share = np.bincount(level, filled, _LEVELS)
    spread = np.where(filled, (mass / np.maximum(share, 1))[level], 0)
    smallest = 1e-4  # of a count, for levels whose mass is all outside: finite, but costly
    p = clipped / clipped.sum()
    q = np.maximum(spread, smallest) / np.maximum(spread, smallest).sum()
    return float((p[filled] * np.log(p[filled] / q[filled])).sum())


def values_of(
    model: onnx.ModelProto, tensors: list[str], samples: Pixels, progress: Callable[[int], None]
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yield the tensors' values for one sample after another.

    Args:
        model: a graph.
        tensors: names of tensors in it.
        samples: preprocessed samples `[N, …]`.
        progress: called with 1 after each sample.
    """
    session = open_session(_with_outputs(model, tensors), exact_sums=True)
    for sample in samples:
        yield dict(zip(tensors, session.run(tensors, make_feed(session, sample[None])), strict=True))
        progress(1)


def _with_outputs(model: onnx.ModelProto, tensors: list[str]) -> onnx.ModelProto:
    augmented = onnx.ModelProto()
    augmented.CopyFrom(model)
    present = {value.name for value in model.graph.output}
    augmented.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)
    return augmented

"""Compare two model files on this machine."""

import time

import numpy as np

from kdedge_runtime import Model
from kdedge_runtime.arrays import Pixels

__all__ = ["paired_latency_ms"]


def paired_latency_ms(first: Model, second: Model, images: Pixels, runs: int = 30) -> tuple[float, float]:
    """Median latency of two models, measured in turn so that a machine that slows down slows both.

    Args:
        first: a model.
        second: the other model.
        images: uint8 RGB `[N, H, W, 3]`, the batch to predict.
        runs: counted runs of each, after five that are not.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 5):
        for model, taken in zip((first, second), times, strict=True):
            started = time.perf_counter()
            model.predict(images)
            if run >= 5:
                taken.append((time.perf_counter() - started) * 1000)
    return float(np.median(times[0])), float(np.median(times[1]))

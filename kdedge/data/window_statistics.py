"""Input of a time series model, measured on its training windows."""

import numpy as np

from kdedge.data.series_samples import WindowSample
from kdedge.data.splits import Split
from kdedge_runtime.errors import DataError, UnreadableSample
from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["measure_windows"]

_HOPS_PER_WINDOW = 4
"""Windows of a stream that each step is in, by default."""


def measure_windows(train: Split, source: str) -> TimeseriesInput:
    """Return the input with the mean and standard deviation of every channel over the readable training windows.

    A constant channel has the standard deviation 1, so that it stays constant.

    Args:
        train: training windows.
        source: name of the dataset in the error.

    Raises:
        DataError: no window can be read.
    """
    windows, layouts = [], []
    for sample in train.samples:
        try:
            windows.append(sample.read().values)
        except UnreadableSample:  # `decode` reports it
            continue
        assert isinstance(sample, WindowSample)
        layouts.append(sample.layout)
    if not windows:
        raise DataError(f"No training window of {source} can be read. Expected finite numbers.")
    layout, length = layouts[0], len(windows[0])
    values = np.concatenate(windows).astype(np.float64)
    std = values.std(axis=0)
    return TimeseriesInput(
        channels=layout.channels,
        length=length,
        mean=tuple(values.mean(axis=0).tolist()),
        std=tuple(np.where(std > 0, std, 1.0).tolist()),
        units=layout.units,
        rate_hz=layout.rate_hz,
        hop=max(1, length // _HOPS_PER_WINDOW),
    )

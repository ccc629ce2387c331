"""Windows of time series as samples of a dataset."""

from dataclasses import dataclass, field

from kdedge.data.samples import LoadedSample, StoredSample, file_stamp
from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.modalities.timeseries import describe_faults
from kdedge_runtime.util.arrays import Floats

__all__ = ["SeriesLayout", "UnreadableRecording", "WindowSample"]


@dataclass(frozen=True, slots=True)
class SeriesLayout:
    """Channels and clock, which all windows of a dataset share."""

    channels: tuple[str, ...]
    """Channel names in the order of the columns."""
    rate_hz: float | None = None
    """Steps per second; None for series without a clock."""
    units: tuple[str, ...] = ()
    """Unit of each channel; empty if unknown."""


@dataclass(frozen=True, slots=True)
class WindowSample(StoredSample):
    """Window of a file that was read whole, because a text file has no index."""

    path: str
    values: Floats = field(repr=False, compare=False)
    """Values `[T, C]`; NaN where a value is missing."""
    layout: SeriesLayout = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.path} ({self.name})"

    def read(self) -> LoadedSample:
        """Return the window; see `StoredSample.read`.

        Raises:
            UnreadableSample: a value is missing or infinite.
        """
        faults = describe_faults(self.values, self.layout.channels)
        if faults is not None:
            raise UnreadableSample(f"{self} has {faults}. Expected finite numbers.", "missing values")
        return LoadedSample(self.values)

    def stamp(self) -> str:
        """Return size and modification time of the file; see `StoredSample.stamp`."""
        return file_stamp(self.path)


@dataclass(frozen=True, slots=True)
class UnreadableRecording(StoredSample):
    """Recording without a window, which is reported like an unreadable sample."""

    path: str
    message: str = field(compare=False)
    """Fault of the file, and the expected content."""

    def __str__(self) -> str:
        return self.path

    def read(self) -> LoadedSample:
        """Raise the error.

        Raises:
            UnreadableSample: always.
        """
        raise UnreadableSample(self.message, "unreadable recording")

    def stamp(self) -> str:
        """Return size and modification time of the file; see `StoredSample.stamp`."""
        return file_stamp(self.path)

"""Time series: windows of sensor channels, float32 with steps as rows and channels as columns."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from kdedge_runtime.errors import SourceError, UnreadableSample
from kdedge_runtime.modalities.input_spec import InputSpec, Renderer, Sample
from kdedge_runtime.modalities.timeseries_names import unnamed_channels
from kdedge_runtime.util.arrays import Floats, Integers, Pixels
from kdedge_runtime.util.counts import counted

if TYPE_CHECKING:
    from kdedge_runtime.drawing.heatmap import HeatStats
    from kdedge_runtime.prediction import Prediction
    from kdedge_runtime.sources.source import Source

__all__ = ["TimeseriesInput", "describe_faults"]

_MAX_CHANNELS = 4096
_MAX_VALUES = 16_000_000
_MAX_NAME_LENGTH = 60


@dataclass(frozen=True)
class TimeseriesInput(InputSpec):
    """Time series input specification: channels, length, rate and standardization.

    The graph takes float32 `[N, length, channels]` in the units of the sensor and standardizes every channel. A window
    has exactly `length` steps: shorter and longer ones are errors, and so are values that are not finite.
    """

    channels: tuple[str, ...]
    """Channel names in the order of the columns, unique."""
    length: int
    """Steps of a window."""
    mean: tuple[float, ...]
    """Channel means of the training windows; subtracted inside the graph."""
    std: tuple[float, ...]
    """Channel standard deviations of the training windows; divided by inside the graph."""
    units: tuple[str, ...] = ()
    """Unit of each channel, such as `m/s²`; empty if unknown."""
    rate_hz: float | None = None
    """Steps per second; None for series without a clock."""
    hop: int = 1
    """Default interval between the windows of a recording in steps."""
    name: str = "series"
    kind: Literal["timeseries"] = "timeseries"

    @property
    def shape(self) -> tuple[int, ...]:
        """Steps and channels."""
        return self.length, len(self.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of values, float32."""
        return np.dtype(np.float32)

    @property
    def summary(self) -> str:
        """Steps and channels, with the duration if the rate is known, such as `100 steps (10 s) × 6 channels`."""
        duration = "" if self.rate_hz is None else f" ({self.length / self.rate_hz:g} s)"
        return f"{counted(self.length, 'step')}{duration} × {counted(len(self.channels), 'channel')}"

    @property
    def column_names(self) -> tuple[str, ...]:
        """Channel names; none if they are numbers alone, as in archives and files of other frameworks."""
        return () if self.channels == unnamed_channels(len(self.channels)) else self.channels

    @property
    def channel_units(self) -> dict[str, str]:
        """Units by channel name; empty if unknown."""
        return dict(zip(self.channels, self.units, strict=False))

    @property
    def hop_s(self) -> float | None:
        """Default interval between windows in seconds; None for series without a clock."""
        return None if self.rate_hz is None else self.hop / self.rate_hz

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Parse the metadata of a model file; see `InputSpec`."""
        known: dict[str, Any] = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known |= {key: tuple(known[key]) for key in ("channels", "mean", "std", "units") if key in known}
        spec = cls(**known)
        if not all(isinstance(text, str) for text in (*spec.channels, *spec.units, spec.name)):
            raise TypeError("expected names and units as str")
        if not all(isinstance(count, int) for count in (spec.length, spec.hop)):
            raise TypeError("expected length and hop as int")
        count = len(spec.channels)
        are_named = 0 < count <= _MAX_CHANNELS and len(set(spec.channels)) == count
        are_printable = all(0 < len(name) <= _MAX_NAME_LENGTH and name.isprintable() for name in spec.channels)
        is_sized = 0 < spec.length <= _MAX_VALUES // count and spec.hop > 0 if count else False
        is_scaled = len(spec.mean) == len(spec.std) == count and all(map(math.isfinite, (*spec.mean, *spec.std)))
        is_timed = spec.rate_hz is None or 0 < spec.rate_hz < math.inf
        has_units = len(spec.units) in (0, count)
        sound = (are_named, are_printable, is_sized, is_scaled, is_timed, has_units)
        if not all(sound) or not all(value > 0 for value in spec.std):
            raise ValueError(f"invalid input {dict(values)}")
        return spec

    def preprocess(self, sample: Sample) -> Sample:
        """Check the shape and the values of a window; nothing is cut, padded or filled.

        Args:
            sample: window `[length, channels]`.

        Returns:
            float32 `[length, channels]`.

        Raises:
            UnreadableSample: the shape differs, or a value is not finite.
        """
        if sample.shape != self.shape or not np.issubdtype(sample.dtype, np.number):
            raise UnreadableSample(
                f"A window has the shape {list(sample.shape)} and the type {sample.dtype}. Expected "
                f"{list(self.shape)}: {self.length} steps of {', '.join(self.channels)}.",
                "wrong shape",
            )
        faults = describe_faults(sample, self.channels)
        if faults is not None:
            raise UnreadableSample(f"A window has {faults}. Expected finite numbers.", "not finite")
        return np.ascontiguousarray(sample, dtype=np.float32)

    @property
    def preprocessing_id(self) -> str:
        """Length and channels; standardization is part of the graph."""
        return f"{self.length} {self.channels}"

    def reference_sample(self, seed: int) -> Sample:
        """Generate a window of stairs within two standard deviations of the mean."""
        steps = np.arange(self.length * len(self.channels), dtype=np.int64)
        stairs = ((steps * (2 * seed + 3) % 17 - 8) / 4).reshape(self.shape)
        return (np.array(self.mean) + np.array(self.std) * stairs).astype(np.float32)

    def map_stats(self, saliency_map: Floats, sample: Sample, shift: tuple[float, float]) -> "HeatStats":
        """Compute the statistics of a map: `cx` lies on the time axis, and `cy` on the channels; see `InputSpec`."""
        from kdedge_runtime.drawing.heatmap import heat_stats

        steps, channels = sample.shape
        return heat_stats(saliency_map, (0.0, 0.0, float(steps), float(channels)), channels, steps, shift)

    def renderer(self, *, moving: bool, fps: float | None) -> Renderer:
        """Create a renderer of plots; see `InputSpec`."""
        from kdedge_runtime.drawing.series_renderer import SeriesRenderer

        return SeriesRenderer(self, moving=moving, fps=fps)

    def draw_explanation(self, prediction: "Prediction", opacity: float) -> Pixels:
        """Plot every channel with heat behind it; see `InputSpec`."""
        from kdedge_runtime.drawing.explanation_drawing import heat_of_sample
        from kdedge_runtime.drawing.series_plot import draw_series

        heat, shift = heat_of_sample(prediction), prediction.display.shift
        return draw_series(prediction.sample, self, heat, opacity=opacity, shift=shift)

    def draw_sample(self, sample: Sample) -> Pixels:
        """Plot every channel as a line; see `draw_series`."""
        from kdedge_runtime.drawing.series_plot import draw_series

        return draw_series(sample, self)

    @property
    def sample_suffix(self) -> str:
        """Suffix of tables, `.csv`."""
        return ".csv"

    @property
    def sample_noun(self) -> str:
        """Window of a recording."""
        return "window"

    def encode_sample(self, sample: Sample) -> bytes:
        """Encode a window as CSV, with the time of each row if the rate is known; nine digits keep every value."""
        titles = [f"{name} [{unit}]" for name, unit in zip(self.channels, self.units, strict=False)]
        lines = [",".join(titles or self.channels)]
        lines += [",".join(f"{value:.9g}" for value in row) for row in sample.tolist()]
        if self.rate_hz is not None:
            times = ["time", *(f"{step / self.rate_hz:.9g}" for step in range(len(sample)))]
            lines = [f"{time},{line}" for time, line in zip(times, lines, strict=True)]
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def mask_size(self) -> tuple[int, int]:
        """Channels and steps."""
        return len(self.channels), self.length

    def positions(self, map_size: tuple[int, int]) -> int:
        """Return the number of positions in time: any number of channels is fine."""
        return map_size[1]

    def mask(self, sample: Sample, keep: Floats, fill: Sample | None = None) -> Sample:
        """Replace hidden values by the mean of the channel, or as in `fill`; see `InputSpec`."""
        hidden = np.asarray(self.mean, np.float32) if fill is None else fill
        shown = keep.transpose(0, 2, 1).astype(np.float32)
        blended: Floats = hidden + shown * (sample - hidden)
        return blended.astype(np.float32)

    def segments(self, sample: Sample, count: int) -> Integers:
        """Divide every channel into stretches of about equal length; few parts join neighboring channels."""
        channels, steps = self.mask_size
        rows = min(channels, count)
        columns = min(steps, count // rows)
        row, column = np.arange(channels) * rows // channels, np.arange(steps) * columns // steps
        return row[:, None] * columns + column

    def check_sample_file(self, path: Path) -> None:
        """Raise unless a file may hold recordings; see `InputSpec`."""
        from kdedge_runtime.sources.timeseries.recorded import is_series_file

        if path.is_file() and not is_series_file(path):
            raise SourceError(f"{path} has no time series. Expected a CSV, Parquet or .ts file, or a folder of them.")

    def open_source(
        self,
        uri: str,
        frames: Literal["all", "latest"] | None = None,
        stop: threading.Event | None = None,
        *,
        loop: bool = False,
        hop_s: float | None = None,
    ) -> "Source":
        """Create a source of windows; see `kdedge_runtime.sources.timeseries`."""
        from kdedge_runtime.sources.timeseries import open_series

        return open_series(self, uri, frames, stop, loop=loop, hop_s=hop_s)


def describe_faults(values: Floats, channels: Sequence[str]) -> str | None:
    """Describe the values that are not finite, with their first channel and step; None if all are finite.

    Args:
        values: window `[T, C]`.
        channels: names of the C channels.
    """
    faulty = ~np.isfinite(values)
    if not faulty.any():
        return None
    step, channel = (int(axis[0]) for axis in np.nonzero(faulty))
    kind = "a missing value" if np.isnan(values[step, channel]) else "an infinite value"
    return f"{kind} in the channel {channels[channel]} at step {step} ({int(faulty.sum())} in total)"

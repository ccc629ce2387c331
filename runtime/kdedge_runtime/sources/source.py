"""Interface of frame sources: frames and counters of missing frames."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import Sample

__all__ = ["Frame", "GroundTruth", "PostedSource", "Source", "is_still_source", "require_sample"]


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of a synthetic frame."""

    label: str
    box: tuple[int, int, int, int] | None = None
    """Bounding box `(left, top, right, bottom)` in pixels, right and bottom exclusive; None for samples that are no
    images."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Sample with its capture time."""

    index: int
    """Position in the source from 0. Dropped and unreadable frames leave gaps."""
    sample: Sample
    """Raw sample, for images uint8 RGB `[H, W, 3]`; read-only by convention."""
    captured_at: float
    """Capture time in seconds on the `time.monotonic` clock: the sensor timestamp if available (picamera2), else the
    time it was read.
    """
    name: str
    """Display name: the file name, or the source name and frame index."""
    truth: GroundTruth | None = None
    """Ground truth; synthetic frames only."""
    span_s: tuple[float, float] | None = None
    """Start and end of a window in seconds from the start of the source; None for samples without windows."""
    file: Path | None = None
    """File that the window was cut from, if the name is not that of a file."""

    def time_s(self, fps: float | None) -> float:
        """Return the time in seconds: the end of the window, the place in a recording, or the capture time.

        Args:
            fps: frame rate of a recording that is not played in real time; None for live sources.
        """
        if self.span_s is not None:
            return self.span_s[1]
        return self.index / fps if fps else self.captured_at


class Source(Protocol):
    """Frame source: a context manager that can be iterated once.

    `__enter__` opens its resources and `__exit__` releases them. Iteration ends with the source. Plain attributes can
    implement the properties.
    """

    @property
    def name(self) -> str:
        """Source as named by the user."""

    @property
    def live(self) -> bool:
        """True if frames pass even when they are not taken (cameras, streams)."""

    @property
    def fps(self) -> float | None:
        """Nominal frame rate; None if there is none (images) or it is unknown."""

    @property
    def expected(self) -> int | None:
        """Number of frames in the source; None if unbounded."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files and folders that the source reads; empty for cameras and streams."""

    @property
    def dropped(self) -> int:
        """Number of frames that passed while the consumer was busy."""

    @property
    def unreadable(self) -> int:
        """Number of frames or files that could not be decoded. They are skipped, never replaced by a black frame."""

    @property
    def reconnects(self) -> int:
        """Number of times that the source failed and recovered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...


@runtime_checkable
class PostedSource(Protocol):
    """Source of samples that other programs post to the live view."""

    @property
    def waiting(self) -> int:
        """Number of samples that wait for the run."""

    def read(self, values: Mapping[str, Any]) -> Frame:
        """Check a sample, and return its frame.

        Args:
            values: sample as JSON values.

        Raises:
            UsageError: the sample cannot be read.
        """

    def add(self, frame: Frame) -> None:
        """Add a frame to the run, without waiting.

        Raises:
            SourceError: too many samples wait for the run.
        """

    def withdraw(self, frame: Frame) -> None:
        """Remove a frame that still waits."""


def is_still_source(source: Source) -> bool:
    """Return True if the frames of an entered source are independent images, not a time series."""
    return not source.live and source.fps is None


def require_sample(path: Path, source: Source, frame: Frame) -> None:
    """Raise if a frame of a file is no sample of its own, but a frame of a video.

    Raises:
        UsageError: the file is a video.
    """
    if frame.span_s is None and not is_still_source(source):
        raise UsageError(
            f"{path} is a video. Expected images; to draw the maps of a video: kdedge-run MODEL --source {path} -o "
            "out.mp4"
        )

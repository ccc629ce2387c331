"""What every source gives: frames, and an honest account of those that it did not give."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from kdedge_runtime.util.arrays import Pixels

__all__ = ["Frame", "Source", "Truth", "stands_still"]


@dataclass(frozen=True)
class Truth:
    """What is known to be in a drawn frame, and where."""

    label: str
    box: tuple[int, int, int, int]
    """`(left, top, right, bottom)` in px, right and bottom exclusive."""


@dataclass(frozen=True)
class Frame:
    """One picture and when it was taken."""

    index: int
    """Position in the source from 0; a frame that was dropped or unreadable leaves a gap."""
    rgb: Pixels
    """uint8 RGB `[H, W, 3]`; nobody writes into it."""
    captured_at: float
    """`time.monotonic()` in seconds: by the sensor where it tells (picamera2), else as soon as it had been read."""
    name: str
    """For people and logs: a file's name, or the source's name and the frame's index."""
    truth: Truth | None = None
    """Known of synthetic frames only."""


class Source(Protocol):
    """Somewhere that frames come from: a context manager to be iterated over once.

    What the source needs is opened by `__enter__` and released by `__exit__`; iteration ends where the source does.
    Plain attributes do for the properties.
    """

    @property
    def name(self) -> str:
        """The source as the user named it."""

    @property
    def live(self) -> bool:
        """Whether frames go by whether or not anybody takes them (a camera, a stream)."""

    @property
    def fps(self) -> float | None:
        """Frames per second that the source itself claims; None where it has no rate (pictures) or does not say."""

    @property
    def expected(self) -> int | None:
        """Frames that the source says it holds; None for one without an end."""

    @property
    def dropped(self) -> int:
        """Frames that passed while the consumer was busy."""

    @property
    def unreadable(self) -> int:
        """Frames or files that exist but could not be decoded: they are skipped, never replaced by a black frame."""

    @property
    def reconnects(self) -> int:
        """Times that the source gave out and came back."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...


def stands_still(source: Source) -> bool:
    """Whether the frames of an entered source are pictures of their own, rather than following one another in time."""
    return not source.live and source.fps is None

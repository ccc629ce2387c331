"""Sliding windows over a sound that arrives in blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.arrays import Floats

__all__ = ["SoundWindows", "sliding_windows"]


@dataclass(frozen=True)
class SoundWindows:
    """Windows that a sound is cut into.

    Raises:
        UsageError: there are gaps between windows.
    """

    rate_hz: int
    """Samples per second."""
    length: int
    """Length of a window in samples."""
    hop_s: float
    """Interval between windows in seconds."""

    def __post_init__(self) -> None:
        if not 1 <= self.hop <= self.length:
            raise UsageError(
                f"--hop {self.hop_s:g}s leaves gaps between windows of {self.length_s:g} s. Expected at most "
                f"{self.length_s:g}s."
            )

    @property
    def hop(self) -> int:
        """Interval between windows in samples."""
        return round(self.hop_s * self.rate_hz)

    @property
    def length_s(self) -> float:
        """Length of a window in seconds."""
        return self.length / self.rate_hz


def sliding_windows(blocks: Iterable[Floats], windows: SoundWindows) -> Iterator[tuple[int, Floats]]:
    """Cut a sound into windows, without samples that are not part of it.

    A sound that is shorter than a window is one window of its own length. The last window ends with the sound.

    Args:
        blocks: PCM float32 `[n]` of any lengths, at the rate of the windows.
        windows: length and interval of the windows.

    Yields:
        Index of the first sample, and PCM float32 `[length]`.
    """
    held, length = np.zeros(0, np.float32), windows.length
    first, following, is_cut = 0, 0, False
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= following + length:
            held, first = held[following:], first + following
            yield first, held[:length].copy()
            following, is_cut = windows.hop, True
    if not is_cut and len(held):
        yield 0, held
    elif len(held) > length:
        yield first + len(held) - length, held[-length:].copy()

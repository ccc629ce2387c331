"""Sliding windows over a sound that arrives in blocks."""

from collections.abc import Iterable, Iterator

import numpy as np

from kdedge_runtime.util.arrays import Floats

__all__ = ["sliding_windows"]


def sliding_windows(blocks: Iterable[Floats], length: int, hop: int) -> Iterator[tuple[int, Floats]]:
    """Cut a sound into windows, without samples that are not part of it.

    A sound that is shorter than a window is one window of its own length. The last window ends with the sound.

    Args:
        blocks: PCM float32 `[n]` of any lengths.
        length: length of a window in samples.
        hop: interval between windows in samples, at most `length`.

    Yields:
        Index of the first sample, and PCM float32 `[length]`.
    """
    held = np.zeros(0, np.float32)
    first, following, is_cut = 0, 0, False
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= following + length:
            held, first = held[following:], first + following
            yield first, held[:length].copy()
            following, is_cut = hop, True
    if not is_cut and len(held):
        yield 0, held
    elif len(held) > length:
        yield first + len(held) - length, held[-length:].copy()

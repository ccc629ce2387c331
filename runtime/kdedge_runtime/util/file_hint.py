"""Advice for error messages about files that do not exist."""

from collections.abc import Iterable
from itertools import islice, takewhile
from operator import eq
from pathlib import Path

__all__ = ["file_hint"]

_NAMES = 2000
"""Maximum number of names that are read from the folder."""
_PAIRS = 400_000
"""Maximum number of compared pairs of characters: all of 2,000 names with 14 characters, or ten of 200 characters."""
_SIMILAR = 0.6
"""Minimum similarity of a suggested name, as in `difflib`."""


def file_hint(path: Path) -> str:
    """Return the most similar path in the folder of a missing file, as a sentence that starts with a space.

    Empty if the path exists, or without a similar name.
    """
    try:
        names = [] if path.exists() else [item.name for item in islice(path.parent.iterdir(), _NAMES)]
    except OSError:  # e.g. the folder does not exist, either
        return ""
    near = _most_similar(path.name, names)
    return "" if near is None else f" Did you mean {path.parent / near}?"


def _most_similar(name: str, others: Iterable[str]) -> str | None:
    """Return the most similar name, as `difflib.get_close_matches` does, but with bounded work; None without one.

    The similarity takes quadratic time. It is not computed for names whose upper bound, which takes linear time, is
    below that of the best name so far. Names with the same start and end come first, because most typing errors are in
    one place.
    """
    from difflib import SequenceMatcher

    matcher = SequenceMatcher(b=name)
    candidates: list[tuple[int, float, str]] = []
    for other in others:
        matcher.set_seq1(other)
        if matcher.real_quick_ratio() >= _SIMILAR and (bound := matcher.quick_ratio()) >= _SIMILAR:
            candidates.append((_shared_ends(name, other), bound, other))
    best: tuple[float, str] | None = None
    pairs = 0
    for _, bound, other in sorted(candidates, reverse=True):
        if best is not None and bound < best[0]:
            continue
        pairs += len(name) * len(other)
        if pairs > _PAIRS:
            break
        matcher.set_seq1(other)
        similarity = matcher.ratio()
        if similarity >= _SIMILAR and (best is None or (similarity, other) > best):
            best = similarity, other
    return None if best is None else best[1]


def _shared_ends(first: str, second: str) -> int:
    """Return the number of equal characters at the start and at the end of two names."""
    return _shared_start(first, second) + _shared_start(first[::-1], second[::-1])


def _shared_start(first: str, second: str) -> int:
    return len(list(takewhile(bool, map(eq, first, second))))

"""Looped playback of a file or folder."""

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.source import Frame, Source

__all__ = ["LoopedSource"]


class LoopedSource:
    """Source that repeats another one, with continuous frame indices and times."""

    live = False
    dropped = 0
    reconnects = 0
    expected: int | None = None

    def __init__(self, source: Source) -> None:
        """Wrap a source that is not live. It is entered once per round."""
        self.name = source.name
        self.paths = source.paths
        self.fps: float | None = None
        self._source = source

    @property
    def unreadable(self) -> int:
        """Number of frames or files that could not be decoded, over all rounds."""
        return self._source.unreadable

    def __enter__(self) -> Self:
        self._source.__enter__()
        self.fps = self._source.fps
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._source.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Frame]:
        start, start_s = 0, 0.0
        while True:
            behind, end_s = start, start_s
            for frame in self._source:
                behind = start + frame.index + 1
                span = None if frame.span_s is None else (start_s + frame.span_s[0], start_s + frame.span_s[1])
                end_s = end_s if span is None else max(end_s, span[1])
                yield replace(frame, index=start + frame.index, span_s=span)
            if behind == start:
                raise SourceError(f"{self.name} returned no readable frame, so there is nothing to repeat.")
            start, start_s = behind, end_s
            self._source.__exit__(None, None, None)
            self._source.__enter__()

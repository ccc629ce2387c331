"""What takes the answers of a run."""

from types import TracebackType
from typing import Protocol, Self

from kdedge_runtime.prediction import Answer
from kdedge_runtime.stream.statistics import Progress

__all__ = ["Sink"]


class Sink(Protocol):
    """Somewhere that answers go: a context manager with `write`."""

    @property
    def wants_overlay(self) -> bool:
        """Whether the next answer should carry its overlay; drawing it costs milliseconds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def write(self, answer: Answer, progress: Progress) -> None:
        """Take one answer, in the order of the frames."""

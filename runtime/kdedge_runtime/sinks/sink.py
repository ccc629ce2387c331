"""Interface of output sinks."""

from types import TracebackType
from typing import Protocol, Self

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.stream.statistics import RunProgress

__all__ = ["Sink"]


class Sink(Protocol):
    """Output sink: a context manager with `write`."""

    @property
    def wants_overlay(self) -> bool:
        """True if the next prediction should include its overlay, which takes milliseconds to draw."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Write one prediction, in frame order."""

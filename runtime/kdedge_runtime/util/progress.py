"""Callback for the progress of long work, shared by all packages."""

from typing import Protocol

__all__ = ["ProgressCallback", "no_progress"]


class ProgressCallback(Protocol):
    """Receives the progress of long work, on the calling thread."""

    def __call__(self, step: str, done: int, total: int, /) -> None:
        """Receive the progress of one step.

        Args:
            step: name of the step, such as `reading samples`.
            done: completed units of work.
            total: all units of work of this step.
        """


def no_progress(step: str, done: int, total: int, /) -> None:
    """Ignore progress."""

"""Callbacks for a training run and its preparation."""

from typing import Protocol

from kdedge.training.trainer import TrainerCallback

__all__ = ["RunCallback"]


class RunCallback(TrainerCallback, Protocol):
    """Callbacks for a training run: the resolved plan, warnings and the progress of preparations."""

    def on_plan(self, lines: list[tuple[str, str]], terms: list[str], epochs: int, unit: str | None) -> None:
        """Called before training.

        Args:
            lines: plan as (name, value with its reason).
            terms: loss terms.
            epochs: number of epochs.
            unit: unit of the metric `val_mae`; None without one.
        """

    def on_warning(self, warning: str) -> None:
        """Called with a warning for the user, such as a report of unreadable files."""

    def on_progress(self, step: str, done: int, total: int, /) -> None:
        """Called while samples are decoded and while the cache of teacher outputs is filled; a `ProgressCallback`."""

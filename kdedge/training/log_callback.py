"""Training callback that logs the plan, warnings and the metrics of each epoch."""

import logging
from typing import Any

from torch import Tensor

from kdedge.training.run_callback import RunCallback

__all__ = ["LogCallback"]

_LOG = logging.getLogger("kdedge")


class LogCallback(RunCallback):
    """Logs training events to the logger `kdedge`: warnings at WARNING, all else at INFO."""

    def on_plan(self, lines: list[tuple[str, str]], terms: list[str], epochs: int, unit: str | None) -> None:
        """Log the resolved plan."""
        for name, value in lines:
            _LOG.info("%s: %s", name, value)

    def on_warning(self, warning: str) -> None:
        """Log a warning."""
        _LOG.warning("%s", warning)

    def on_progress(self, step: str, done: int, total: int, /) -> None:
        """Ignore the progress of decoding and caching."""

    def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
        """Ignore single steps."""

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        """Log the metrics of an epoch."""
        _LOG.info("%s", metrics)

"""Scheduling of explanations: requested cadence and frame rate budget."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kdedge_runtime.errors import UsageError

__all__ = ["ALWAYS", "ExplainSchedule", "FpsBudget", "Reason", "ExplainScheduler"]

When = Literal["always", "every", "on-change", "low-confidence"]
Reason = Literal["cadence", "budget"]
"""Reason why a frame was not explained: `cadence` (not scheduled) or `budget` (behind the frame rate)."""

_CONFIDENT = 0.5
_FORGIVEN_HALF_S = 5.0


@dataclass(frozen=True)
class ExplainSchedule:
    """Schedule of explanations."""

    when: When
    """`always`; `every` N frames; `on-change` of the predicted label; `low-confidence` predictions only."""
    every: int = 1
    """Frames from one explanation to the next."""
    below: float = _CONFIDENT
    """Probability below which `low-confidence` explains a prediction, in (0, 1]."""

    @classmethod
    def parse(cls, text: str) -> "ExplainSchedule":
        """Parse `always`, `every=N`, `on-change` or `low-confidence[=P]`.

        Raises:
            UsageError: the text is not one of these.
        """
        name, _, value = text.partition("=")
        if text in ("always", "on-change", "low-confidence"):
            return cls(text)  # type: ignore[arg-type]  # one of the three literals
        if name == "every" and value.isdecimal() and int(value) > 0:
            return cls("every", every=int(value))
        if name == "low-confidence" and re.fullmatch(r"0?\.\d+|1(\.0*)?", value) and float(value) > 0:
            return cls("low-confidence", below=float(value))
        raise UsageError(
            f"--cadence {text} is not valid. Expected always, every=N (every=5), on-change or low-confidence[=P] (P "
            f"in (0, 1], default {_CONFIDENT})."
        )


ALWAYS = ExplainSchedule("always")


class FpsBudget:
    """Tracks whether a run keeps up with a minimum frame rate."""

    def __init__(self, fps: float, *, live: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a budget.

        Args:
            fps: minimum frame rate in frames per second.
            live: True if frames pass even when they are not taken. A live source slower than the target is kept up with
            if none of its frames is dropped.
            clock: monotonic clock in seconds.
        """
        self._fps = fps
        self._live = live
        self._clock = clock
        self._ahead = 0.0
        self._last: tuple[int, float] | None = None

    @property
    def kept(self) -> bool:
        """True if the frames so far were taken on time, within half a frame."""
        return self._ahead > -0.5

    def take(self, index: int) -> None:
        """Record that the frame with this index is taken now. At most one frame of lead is accumulated."""
        now = self._clock()
        if self._last is not None:
            passed, elapsed_s = index - self._last[0], now - self._last[1]
            due = self._fps * elapsed_s
            self._ahead = min(self._ahead + 1 - (min(due, passed) if self._live else due), 1.0)
            if self._live and passed <= due and self._ahead < 0:
                # A camera no faster than the budget offers no frames to catch up with, so its deficit decays.
                self._ahead *= 0.5 ** (elapsed_s / _FORGIVEN_HALF_S)
        self._last = index, now


class ExplainScheduler:
    """Decides per frame whether to explain, so that a run keeps its minimum frame rate.

    Below it, explanations are skipped until the frames without one have made up the time.
    """

    def __init__(self, cadence: ExplainSchedule = ALWAYS, budget: FpsBudget | None = None) -> None:
        """Create a scheduler.

        Args:
            cadence: requested schedule.
            budget: frame rate budget; None for no limit.
        """
        self._cadence = cadence
        self._budget = budget
        self._frames = 0
        self._explained: dict[str | None, str] = {}

    def before(self, index: int) -> Reason | None:
        """Return the reason not to explain a frame that is known before inference, or None."""
        turn, self._frames = self._frames % self._cadence.every == 0, self._frames + 1
        if self._budget is not None:
            self._budget.take(index)
        if not turn:
            return "cadence"
        return None if self._budget is None or self._budget.kept else "budget"

    def after(self, label: str, probability: float, region: str | None = None) -> Reason | None:
        """Return the reason not to explain a frame or region that is known after inference, or None to explain it."""
        when = self._cadence.when
        if when == "on-change" and label == self._explained.get(region):
            return "cadence"
        if when == "low-confidence" and probability >= self._cadence.below:
            return "cadence"
        self._explained[region] = label
        return None

    def forget(self) -> None:
        """Treat the next prediction as a change, because a viewer connected or requested another explanation."""
        self._explained.clear()

"""Which frames are explained: as often as asked, and as time allows."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kdedge_runtime.errors import UsageError

__all__ = ["ALWAYS", "Cadence", "FrameBudget", "Reason", "Thinning"]

When = Literal["always", "every", "on-change", "low-confidence"]
Reason = Literal["cadence", "budget"]
"""Why a frame was not explained: it was not its turn, or there was no time."""

_CONFIDENT = 0.5
_FORGIVEN_HALF_S = 5.0


@dataclass(frozen=True)
class Cadence:
    """How often to explain."""

    when: When
    """`always`; `every` so many frames; `on-change` of the answer; `low-confidence` of the answer."""
    every: int = 1
    """Frames from one explanation to the next."""
    below: float = _CONFIDENT
    """`low-confidence` explains answers whose probability is below this, in (0, 1]."""

    @classmethod
    def parse(cls, text: str) -> "Cadence":
        """Read what a user typed: `always`, `every=N`, `on-change` or `low-confidence[=P]`.

        Raises:
            UsageError: it is none of them.
        """
        name, _, value = text.partition("=")
        if text in ("always", "on-change", "low-confidence"):
            return cls(text)  # type: ignore[arg-type]  # one of the three literals
        if name == "every" and value.isdecimal() and int(value) > 0:
            return cls("every", every=int(value))
        if name == "low-confidence" and re.fullmatch(r"0?\.\d+|1(\.0*)?", value) and float(value) > 0:
            return cls("low-confidence", below=float(value))
        raise UsageError(
            f"--cadence {text} is none of: always, every=N (every=5), on-change, low-confidence[=P] (P in (0, 1], "
            f"{_CONFIDENT} if left out)."
        )


ALWAYS = Cadence("always")


class FrameBudget:
    """Whether a run keeps up with a number of frames per second."""

    def __init__(self, fps: float, *, live: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Start.

        Args:
            fps: frames per second to keep up with.
            live: whether frames go by whether or not they are taken. No more can be taken then than go by, so a camera
                that is slower than the budget is kept up with when none of its frames is missed.
            clock: seconds.
        """
        self._fps = fps
        self._live = live
        self._clock = clock
        self._ahead = 0.0
        self._last: tuple[int, float] | None = None

    @property
    def kept(self) -> bool:
        """Whether the frames so far were taken in their time, give or take half a frame."""
        return self._ahead > -0.5

    def take(self, index: int) -> None:
        """Book that the frame of this index is taken now. To be ahead is not hoarded beyond one frame."""
        now = self._clock()
        if self._last is not None:
            passed, elapsed_s = index - self._last[0], now - self._last[1]
            due = self._fps * elapsed_s
            self._ahead = min(self._ahead + 1 - (min(due, passed) if self._live else due), 1.0)
            if self._live and passed <= due and self._ahead < 0:
                # What was lost of a camera that is no faster than the budget can never be won back.
                self._ahead *= 0.5 ** (elapsed_s / _FORGIVEN_HALF_S)
        self._last = index, now


class Thinning:
    """Decides frame by frame whether to explain, for a run that is to keep up with a number of frames per second.

    Behind the budget, explanations are left out until the frames without one have won back the time.
    """

    def __init__(self, cadence: Cadence = ALWAYS, budget: FrameBudget | None = None) -> None:
        """Start.

        Args:
            cadence: how often to explain, time permitting.
            budget: None leaves the time out of it.
        """
        self._cadence = cadence
        self._budget = budget
        self._frames = 0
        self._explained: str | None = None

    def before(self, index: int) -> Reason | None:
        """What already speaks against explaining the frame of this index, before the model has seen it."""
        turn, self._frames = self._frames % self._cadence.every == 0, self._frames + 1
        if self._budget is not None:
            self._budget.take(index)
        if not turn:
            return "cadence"
        return None if self._budget is None or self._budget.kept else "budget"

    def after(self, label: str, probability: float) -> Reason | None:
        """What speaks against explaining this frame now that its answer is known; None has it explained."""
        when = self._cadence.when
        if when == "on-change" and label == self._explained:
            return "cadence"
        if when == "low-confidence" and probability >= self._cadence.below:
            return "cadence"
        self._explained = label
        return None

    def forget(self) -> None:
        """Take the next answer for a change: somebody has begun to look, or wants something else explained."""
        self._explained = None

"""Which frames are explained: as often as asked, and as time allows."""

import re
from dataclasses import dataclass
from typing import Literal

from kdedge_runtime.errors import UsageError

__all__ = ["ALWAYS", "Cadence", "Reason", "Thinning", "TimeAccount"]

When = Literal["always", "every", "on-change", "low-confidence"]
Reason = Literal["cadence", "budget"]
"""Why a frame was not explained: it was not its turn, or there was no time."""

_CONFIDENT = 0.5
_DEEPEST_PERIODS = 600


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
        if name == "low-confidence" and re.fullmatch(r"0?\.\d+|1", value) and float(value) > 0:
            return cls("low-confidence", below=float(value))
        raise UsageError(
            f"--cadence {text} is none of: always, every=N (every=5), on-change, low-confidence[=P] (P in (0, 1], "
            f"{_CONFIDENT} if left out)."
        )


ALWAYS = Cadence("always")


class TimeAccount:
    """What a stage has left of the time that its frames may take; explanations overdraw it, other frames fill it."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._left_s = 0.0

    @property
    def covered(self) -> bool:
        """Whether the frames so far took no more than their time."""
        return self._left_s >= 0

    def spend(self, busy_s: float) -> None:
        """Book one frame. Time that is left over is not hoarded beyond one frame's worth."""
        left_s = self._left_s + self._period_s - busy_s
        self._left_s = min(max(left_s, -_DEEPEST_PERIODS * self._period_s), self._period_s)


class Thinning:
    """Decides frame by frame whether to explain, for a run that is to keep up with a number of frames per second.

    Over budget, explanations are left out until the frames without one have won back the time, so that they thin
    before frames are dropped. The model and the output work side by side, so each has an account of its own.
    """

    def __init__(self, cadence: Cadence = ALWAYS, budget_fps: float | None = None) -> None:
        """Start.

        Args:
            cadence: how often to explain, time permitting.
            budget_fps: frames per second to keep up with; None leaves the time out of it.
        """
        period_s = float("inf") if budget_fps is None else 1 / budget_fps
        self.model_time, self.output_time = TimeAccount(period_s), TimeAccount(period_s)
        self._cadence = cadence
        self._frames = 0
        self._explained: str | None = None

    def before(self) -> Reason | None:
        """What already speaks against explaining the next frame, before the model has seen it."""
        turn, self._frames = self._frames % self._cadence.every == 0, self._frames + 1
        if not turn:
            return "cadence"
        return None if self.model_time.covered and self.output_time.covered else "budget"

    def after(self, label: str, probability: float) -> Reason | None:
        """What speaks against explaining this frame now that its answer is known; None has it explained."""
        when = self._cadence.when
        if when == "on-change" and label == self._explained:
            return "cadence"
        if when == "low-confidence" and probability >= self._cadence.below:
            return "cadence"
        self._explained = label
        return None

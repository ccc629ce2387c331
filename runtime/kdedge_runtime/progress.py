"""Where a run stands, and what it came to."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from kdedge_runtime.answer import Answer
from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.frame import Source
from kdedge_runtime.timing import Stage, StageTimer, Tally

__all__ = ["STAGES", "Progress", "RunSummary"]

STAGES = ("capture", "preprocess", "inference", "overlay", "output")
"""A frame's way: waiting for it, bringing it to size, the model, drawing, and the sinks."""
_RECENT_FRAMES = 30


class Progress:
    """The counters of a run while it goes on. Sinks read it, also from other threads."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self.frames = 0
        self.labels: Counter[str] = Counter()
        self.timer = StageTimer(STAGES)
        self._ages = Tally()
        self._source = source
        self._clock = clock
        self._started = clock()
        self._ended_at: deque[float] = deque([self._started], maxlen=_RECENT_FRAMES + 1)

    def count(self, answer: Answer) -> None:
        """Take in one more answer."""
        self.frames += 1
        self.labels[answer.label] += 1
        self._ages.add(answer.age_ms)
        self._ended_at.append(self._clock())

    @property
    def expected(self) -> int | None:
        """Frames that the source promises; None without an end."""
        return self._source.expected

    @property
    def dropped(self) -> int:
        """Frames that passed while the model was busy."""
        return self._source.dropped

    @property
    def unreadable(self) -> int:
        """Frames or files that could not be decoded."""
        return self._source.unreadable

    @property
    def recent_fps(self) -> float:
        """Frames per second over the most recent frames."""
        ended_at = self._ended_at.copy()
        span = ended_at[-1] - ended_at[0]
        return (len(ended_at) - 1) / span if span > 0 else 0.0

    def summary(self, failure: SourceError | None = None) -> "RunSummary":
        """The figures so far, fixed."""
        elapsed_s = self._ended_at[-1] - self._started
        return RunSummary(
            frames=self.frames,
            expected=self.expected,
            dropped=self.dropped,
            unreadable=self.unreadable,
            elapsed_s=elapsed_s,
            fps=self.frames / elapsed_s if elapsed_s > 0 else 0.0,
            stages=self.timer.stages(),
            age=self._ages.stage(),
            labels=tuple(self.labels.most_common(5)),
            failure=failure,
        )


@dataclass(frozen=True)
class RunSummary:
    """What a run came to."""

    frames: int
    """Frames answered."""
    expected: int | None
    """Frames that the source promised; None without an end."""
    dropped: int
    unreadable: int
    elapsed_s: float
    """From the start of the first wait to the last answer; loading and warm-up are not in it."""
    fps: float
    stages: dict[str, Stage]
    age: Stage | None
    """From capture to answer; None without a frame."""
    labels: tuple[tuple[str, int], ...]
    """The most frequent answers with their counts."""
    failure: SourceError | None = None
    """Why the source gave out before its end; what came before it is complete."""

    def table(self) -> str:
        """The summary for a terminal, without a newline at the end."""
        of_promised = f" of {self.expected:,}" if self.expected is not None else ""
        lines = [
            f"{self.frames:,}{of_promised} frames in {self.elapsed_s:.1f} s ({self.fps:.1f} fps), "
            f"{self.dropped:,} dropped, {self.unreadable:,} unreadable"
        ]
        if self.stages:
            lines.append(f"{'':12}{'p50 ms':>9}{'p95 ms':>9}{'mean ms':>9}")
            rows = self.stages | ({"frame age": self.age} if self.age else {})
            lines += [
                f"{name:12}{stage.p50_ms:9.2f}{stage.p95_ms:9.2f}{stage.mean_ms:9.2f}" for name, stage in rows.items()
            ]
        if self.labels:
            lines.append("answers: " + ", ".join(f"{label} {count:,}" for label, count in self.labels))
        return "\n".join(lines)

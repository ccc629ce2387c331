"""Progress counters and summary of a run."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdedge_runtime.errors import SourceError
from kdedge_runtime.familiarity import UNKNOWN
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sources.source import PostedSource, Source, is_still_source
from kdedge_runtime.stream.schedule import Reason
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.printable import printable
from kdedge_runtime.util.timing import StageLatency, StageTally, StageTimer

__all__ = ["STAGES", "RunProgress", "RunSummary"]

STAGES = ("wait", "preprocess", "inference", "explanation", "overlay", "output")
"""Stages of a frame: wait for it, resize, model, black-box explainer, drawing, sinks."""
_RECENT_FRAMES = 30
_SHOWN_LABELS = 5
_TIMED_FRAMES = 10
"""Minimum number of independent samples for a summary of times."""
_REMEDIES = {
    "wait": "Use a faster source",
    "preprocess": "Use smaller frames",
    "inference": "Use a smaller or a quantized model",
    "explanation": "Limit explanations with --budget-ms",
    "overlay": "Remove an output with overlays",
    "output": "Remove an output",
}
"""Change that makes each stage faster."""


class RunProgress:
    """Live counters of a run. Sinks read them, also from other threads."""

    def __init__(
        self, source: Source, clock: Callable[[], float] = time.monotonic, *, min_fps: float | None = None
    ) -> None:
        """Create counters at zero.

        Args:
            source: source of the frames.
            clock: monotonic clock in seconds.
            min_fps: requested minimum frame rate; None without one.
        """
        self.frames = 0
        self.labels: Counter[tuple[str | None, str]] = Counter()
        """Number of predictions by region and label. The region is None for the whole frame."""
        self.skipped: Counter[Reason] = Counter()
        self.explained = 0
        self.unknown = 0
        """Number of predictions below the threshold of familiarity."""
        self.failure: SourceError | None = None
        self.timer = StageTimer(STAGES)
        self._ages = StageTally()
        self._source = source
        self._clock = clock
        self._min_fps = min_fps
        self._ended_at: deque[float] = deque(maxlen=_RECENT_FRAMES + 1)
        self.start()

    def start(self) -> None:
        """Start measuring the elapsed time."""
        self._started = self._clock()
        self._ended_at.clear()
        self._ended_at.append(self._started)

    def count(self, prediction: Prediction) -> None:
        """Count a frame with the predictions for all of its regions."""
        self.frames += 1
        self.labels.update((each.region_name, each.label) for each in prediction.by_region if not each.unknown)
        self.unknown += sum(each.unknown for each in prediction.by_region)
        self.explained += any(each.saliency_map is not None for each in prediction.by_region)
        if prediction.frame_skip_reason is not None:
            self.skipped[prediction.frame_skip_reason] += 1
        self._ages.add(prediction.age_ms)
        self._ended_at.append(self._clock())

    @property
    def expected(self) -> int | None:
        """Number of frames in the source; None if unbounded."""
        return self._source.expected

    @property
    def dropped(self) -> int:
        """Number of frames that passed while the model was busy."""
        return self._source.dropped

    @property
    def unreadable(self) -> int:
        """Number of frames or files that could not be decoded."""
        return self._source.unreadable

    @property
    def reconnects(self) -> int:
        """Number of times that the source failed and recovered."""
        return self._source.reconnects

    @property
    def recent_fps(self) -> float:
        """Frames per second over the most recent frames."""
        ended_at = self._ended_at.copy()
        span = ended_at[-1] - ended_at[0]
        return (len(ended_at) - 1) / span if span > 0 else 0.0

    def summary(self) -> "RunSummary":
        """Return the current counters as a summary."""
        elapsed_s = self._ended_at[-1] - self._started
        return RunSummary(
            frames=self.frames,
            expected=self.expected,
            dropped=self.dropped,
            unreadable=self.unreadable,
            reconnects=self.reconnects,
            explained=self.explained,
            skipped=dict(self.skipped),
            elapsed_s=elapsed_s,
            fps=self.frames / elapsed_s if elapsed_s > 0 else 0.0,
            source_fps=self._source.fps if self._source.live else None,
            stages=self.timer.stages(),
            age=self._ages.stage(),
            labels=tuple((_named(*key), count) for key, count in self.labels.most_common()),
            unknown=self.unknown,
            failure=self.failure,
            is_timed=self.frames >= _TIMED_FRAMES or not is_still_source(self._source),
            is_posted=isinstance(self._source, PostedSource),
            min_fps=self._min_fps,
        )


@dataclass(frozen=True)
class RunSummary:
    """Summary of a run."""

    frames: int
    """Number of predicted frames."""
    expected: int | None
    """Number of frames in the source; None if unbounded."""
    dropped: int
    unreadable: int
    reconnects: int
    """Number of times that the source failed and recovered."""
    explained: int
    """Number of frames with a map, of any region."""
    skipped: dict[Reason, int]
    """Number of frames that were not explained, by reason."""
    elapsed_s: float
    """Seconds from the first wait for a frame to the last prediction, without loading and warm-up."""
    fps: float
    source_fps: float | None
    """Frame rate of a live source, or of a file played in real time."""
    stages: dict[str, StageLatency]
    age: StageLatency | None
    """Time from capture to prediction; None without frames."""
    labels: tuple[tuple[str, int], ...]
    """Labels with their counts, most frequent first, without unknown predictions; `REGION: LABEL` for regions."""
    unknown: int = 0
    """Number of frames or regions below the threshold of familiarity."""
    failure: SourceError | None = None
    """Error that ended the source early; earlier predictions are complete."""
    is_timed: bool = True
    """False for a few images or rows, whose rates and percentiles mean nothing."""
    is_posted: bool = False
    """True if clients post the samples, so that the frame rate is theirs."""
    min_fps: float | None = None
    """Requested minimum frame rate; None without one."""

    @property
    def model_fps(self) -> float | None:
        """Frame rate of the model alone, without reading, drawing and writing; None without frames."""
        parts = [self.stages[name] for name in ("inference", "explanation") if name in self.stages]
        busy_ms = sum(stage.mean_ms * stage.count for stage in parts)
        # The model may have been one or two frames ahead when the run ended.
        return parts[0].count / busy_ms * 1e3 if busy_ms > 0 else None

    def as_record(self) -> dict[str, Any]:
        """Return the summary as a JSON-compatible dictionary."""
        stages = self.stages | ({"age": self.age} if self.age else {})
        return {
            "frames": self.frames,
            "expected": self.expected,
            "dropped": self.dropped,
            "unreadable": self.unreadable,
            "reconnects": self.reconnects,
            "explained": self.explained,
            "skipped": self.skipped,
            "unknown": self.unknown,
            "elapsed_s": round(self.elapsed_s, 3),
            "fps": round(self.fps, 2),
            "min_fps": self.min_fps,
            "source_fps": None if self.source_fps is None else round(self.source_fps, 2),
            "model_fps": None if self.model_fps is None else round(self.model_fps, 2),
            "latency_ms": {
                name: {"p50": round(stage.p50_ms, 2), "p95": round(stage.p95_ms, 2), "p99": round(stage.p99_ms, 2)}
                for name, stage in stages.items()
            },
            "failure": None if self.failure is None else str(self.failure),
        }

    def table(self) -> str:
        """Return the summary as text, without a trailing newline."""
        lines = [self._counts(), *(self._rates() if self.is_timed else []), *self._explanations(), *self._minimum()]
        if self.stages and self.is_timed:
            lines.append(f"{'':12}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'mean ms':>9}")
            rows = self.stages | ({"frame age": self.age} if self.age else {})
            lines += [
                f"{name:12}{stage.p50_ms:9.2f}{stage.p95_ms:9.2f}{stage.p99_ms:9.2f}{stage.mean_ms:9.2f}"
                for name, stage in rows.items()
            ]
        counts = [*self.labels[:_SHOWN_LABELS], *([(UNKNOWN, self.unknown)] if self.unknown else [])]
        shown = [f"{printable(label)} × {count:,}" for label, count in counts]
        if others := self.labels[_SHOWN_LABELS:]:
            shown.append(f"other labels × {sum(count for _, count in others):,}")
        if shown:
            lines.append(f"predictions: {', '.join(shown)}")
        return "\n".join(lines)

    def _counts(self) -> str:
        frames = counted(self.frames, "frame")
        if self.expected is not None:
            frames = f"{self.frames:,} of {counted(self.expected, 'frame')}"
        counts = (
            f"{frames} in {self.elapsed_s:.1f} s ({self.fps:.1f} fps), "
            f"{self.dropped:,} dropped, {self.unreadable:,} unreadable"
        )
        return counts + (f", {counted(self.reconnects, 'reconnect')}" if self.reconnects else "")

    def _rates(self) -> list[str]:
        if self.model_fps is None or self.is_posted:
            return []
        reachable, of = self.model_fps, f"the {self.model_fps:.1f} fps of the model alone"
        if self.source_fps is not None and self.source_fps < reachable:
            reachable, of = self.source_fps, f"the {self.source_fps:.1f} fps of the source"
        # Less than half a percent is the rate of a source that is waited for, not of the run.
        return [f"{self.fps / reachable:.0%} of {of}"] if self.fps / reachable >= 0.005 else []

    def _explanations(self) -> list[str]:
        if not self.skipped:
            return []
        reasons = ", ".join(f"{count:,} skipped by {reason}" for reason, count in sorted(self.skipped.items()))
        return [f"{counted(self.explained, 'frame')} explained, {reasons}"]

    @property
    def misses_minimum(self) -> bool:
        """True if the run is more than one frame behind its minimum frame rate."""
        return self.min_fps is not None and self.frames + 1 < self.min_fps * self.elapsed_s

    def _minimum(self) -> list[str]:
        if not self.misses_minimum:
            return []
        slowest = max(self.stages, key=lambda name: self.stages[name].mean_ms * self.stages[name].count)
        return [
            f"--min-fps {self.min_fps:g} was not reached: {self.fps:.1f} fps measured, at least {self.min_fps:g} "
            f"expected. The slowest stage was {slowest}. {_REMEDIES[slowest]}, or set a lower --min-fps."
        ]


def _named(region: str | None, label: str) -> str:
    return label if region is None else f"{region}: {label}"

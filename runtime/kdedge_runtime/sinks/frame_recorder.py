"""Recording of the most useful frames, from which `kdedge distill --unlabeled` learns.

```
DIR/20260131T120000-000042.jpg   frame, or region of one
DIR/frames.jsonl                 one JSON object per frame
```
"""

import heapq
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sources.source import Source
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.files import atomic_write, remove_partial_files
from kdedge_runtime.util.printable import printable_json

__all__ = ["RECORDED", "FrameRecorder"]

RECORDED = "frames.jsonl"
"""File in a folder of recorded frames, with one JSON object per frame."""
_INTERVAL_S = 1.0
_STALE_LINES = 100
"""Number of lines of removed frames, besides as many as there are frames, before the file is rewritten."""


@dataclass(frozen=True, order=True)
class _Entry:
    """Recorded frame; the least useful and oldest one is the smallest."""

    usefulness: float
    order: int
    name: str
    size_bytes: int
    line: str


@dataclass(frozen=True)
class _Candidate:
    """Most useful frame of the current second."""

    usefulness: float
    is_changed: bool
    ends_s: float
    prediction: Prediction


class FrameRecorder:
    """Writes the most useful frame of each second, and of each region, as a file that training reads.

    A frame is more useful the lower the probability or similarity of its prediction, and by 1 if its label differs from
    that of the frame before, or it becomes unknown. If the folder is full, the least useful frames are removed, or the
    new one is not written. Each sample is written whole or not at all. A later run continues the folder.
    """

    wants_overlay = False

    def __init__(
        self,
        folder: Path,
        cap_mb: float,
        source: Source,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        suffix: str = ".jpg",
    ) -> None:
        """Create a sink. The folder is created or read on entering.

        Args:
            folder: output folder: new, empty or recorded before.
            cap_mb: limit of all files together in MB (10^6 bytes), at least 1.
            source: source of the frames. Files are timed by their frame rate; of single samples, each is recorded.
            now: clock for the names.
            suffix: suffix of the recorded files, `InputSpec.sample_suffix`.

        Raises:
            UsageError: the limit is below 1 MB or not finite.
        """
        cap_bytes = cap_mb * 1e6
        if not 1e6 <= cap_bytes < math.inf:
            raise UsageError(
                f"A limit of {cap_mb:g} MB is invalid for a recording. Expected a finite number, 1 or more."
            )
        self._folder, self._cap_bytes, self._source, self._now = folder, int(cap_bytes), source, now
        self._entries: list[_Entry] = []
        self._bytes = self._written = self._lines = 0
        self._suffix = suffix
        self._labels: dict[str | None, str] = {}
        self._candidates: dict[str | None, _Candidate] = {}

    def __enter__(self) -> Self:
        listed = self._folder / RECORDED
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not listed.is_file() and any(self._folder.iterdir()):
                raise UsageError(
                    f"--record {self._folder} holds other files. Expected a new folder, or one of an earlier --record."
                )
            text = listed.read_text(encoding="utf-8", errors="replace") if listed.is_file() else ""
            remove_partial_files(self._folder, {self._suffix, ".jsonl"})
            for line in text.splitlines():
                self._adopt(line)
            listed_names = {entry.name for entry in self._entries}
            for path in sorted(self._folder.glob(f"*{self._suffix}")):  # a killed run has not written its line
                if path.name not in listed_names:
                    self._adopt(printable_json({"file": path.name, "usefulness": 0.0}))
            self._rewrite()
        except OSError as error:
            raise UsageError(f"--record cannot use the folder {self._folder}: {error.strerror or error}.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if kind is None:
            for region in list(self._candidates):
                self._record(self._candidates.pop(region))
            self._rewrite()

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Consider the frame, or each region of it, and write the most useful one of a second that is over."""
        at_s = self._seconds(prediction)
        for each in prediction.by_region:
            region = each.region_name
            is_changed = self._labels.get(region, each.answer) != each.answer
            self._labels[region] = each.answer
            before = self._candidates.get(region)
            if before is not None and at_s >= before.ends_s:
                self._record(before)
                before = None
            usefulness = (1 - (1.0 if each.share is None else each.share)) + is_changed
            if before is None or usefulness > before.usefulness:
                ends_s = at_s + _INTERVAL_S if before is None else before.ends_s
                self._candidates[region] = _Candidate(usefulness, is_changed, ends_s, each)

    def _seconds(self, prediction: Prediction) -> float:
        """Return the time of a frame in seconds; every single sample has a second of its own."""
        frame = prediction.frame
        if self._source.live:
            return frame.captured_at
        return frame.index * _INTERVAL_S if self._source.fps is None else frame.index / self._source.fps

    def _record(self, candidate: _Candidate) -> None:
        """Write a frame if there is room, or if it is more useful than recorded ones."""
        prediction, at = candidate.prediction, self._now()
        region = "" if prediction.region_name is None else f"-{prediction.region_name}"
        stem = f"{at:%Y%m%dT%H%M%S}-{prediction.frame.index:06}{region}".replace("/", "-").replace(" ", "-")
        path = self._folder / f"{stem}{self._suffix}"
        if path.exists():  # the clock was set back
            path = self._folder / f"{stem}-{self._written}{self._suffix}"
        content = prediction.input.encode_sample(prediction.sample)
        values = {
            "file": path.name,
            "time": at.isoformat(timespec="milliseconds"),
            "name": prediction.frame.name,
            "label": prediction.label,
            prediction.score_key: round(prediction.score, 5),
            "unknown": prediction.unknown,
            "changed": candidate.is_changed,
            "usefulness": round(candidate.usefulness, 5),
        }
        line = printable_json(values) + "\n"
        entry = _Entry(candidate.usefulness, self._written, path.name, len(content) + len(line.encode()), line)
        try:
            if self._make_room(entry):
                atomic_write(path, content, durable=False)
                with (self._folder / RECORDED).open("a", encoding="utf-8", newline="\n") as lines:
                    lines.write(line)
                self._add(entry)
                if self._lines > 2 * len(self._entries) + _STALE_LINES:
                    self._rewrite()
        except OSError as error:
            raise KdedgeError(
                f"--record cannot write to {self._folder}: {error.strerror or error}. All frames before are complete."
            ) from error

    def _make_room(self, entry: _Entry) -> bool:
        """Remove less useful frames until a new one fits; return False if it is the least useful."""
        removable: list[_Entry] = []
        freed = self._cap_bytes - self._bytes
        while freed < entry.size_bytes:
            if not self._entries or self._entries[0].usefulness > entry.usefulness:
                for kept in removable:
                    heapq.heappush(self._entries, kept)
                return False
            removable.append(heapq.heappop(self._entries))
            freed += removable[-1].size_bytes
        for removed in removable:
            (self._folder / removed.name).unlink(missing_ok=True)
            self._bytes -= removed.size_bytes
        return True

    def _add(self, entry: _Entry) -> None:
        heapq.heappush(self._entries, entry)
        self._bytes += entry.size_bytes
        self._written += 1
        self._lines += 1

    def _adopt(self, line: str) -> None:
        """Continue with a frame of an earlier run; partial lines and removed frames are skipped."""
        try:
            values: dict[str, Any] = json.loads(line)
            path, usefulness = self._folder / Path(values["file"]).name, float(values["usefulness"])
        except (ValueError, KeyError, TypeError):
            return
        if path.is_file():
            size_bytes = path.stat().st_size + len(line.encode()) + 1
            self._add(_Entry(usefulness, self._written, path.name, size_bytes, f"{line}\n"))

    def _rewrite(self) -> None:
        """Write the lines of the recorded frames in order."""
        lines = [entry.line for entry in sorted(self._entries, key=lambda entry: entry.order)]
        atomic_write(self._folder / RECORDED, "".join(lines))
        self._lines = len(lines)

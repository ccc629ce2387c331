"""One line of JSON a frame, at about 200 bytes: the answer and where it came from. The last holds the run's figures."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.prediction import Answer
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.statistics import Progress
from kdedge_runtime.util.printable import printable_json

__all__ = ["JsonLines", "record"]


def record(answer: Answer, age_now_s: float, now: datetime) -> dict[str, Any]:
    """An answer as the object of its line.

    Args:
        answer: what the model said.
        age_now_s: seconds since the frame was captured.
        now: the time at this moment, in UTC.
    """
    line = {
        "frame": answer.frame.index,
        "name": answer.frame.name,
        "time": (now - timedelta(seconds=age_now_s)).isoformat(timespec="milliseconds"),
        "age_ms": round(answer.age_ms, 2),
        "label": answer.label,
        "p": round(answer.probability, 5),
        "explained": None if answer.saliency_map is None else answer.explained,
        "left_out": answer.left_out,
        "heat": _heat(answer),
    }
    if answer.frame.truth is not None:
        line["truth"] = {"label": answer.frame.truth.label, "box": _fractions(answer.frame)}
    return line


class JsonLines:
    """Writes `record`s to a file, or to standard output for `-`, each flushed at once.

    `time` is when the frame was captured, `age_ms` how old it was when it was answered. `explained` is the class that
    the heat speaks for; where the frame was not explained it is null, and `left_out` says why: `cadence` or `budget`.
    `heat` holds `cx` and `cy` (centre of the evidence as fractions of the frame, from its upper left corner), `area`
    (share of the map above half of its maximum) and `entropy` (0 one cell, 1 everywhere). It is null without a map;
    its parts are null where nothing speaks for the class. Synthetic frames bring their `truth`: `label` and `box`
    (left, top, right, bottom as fractions of the frame).

    The last line holds `summary` alone: the figures of the run.
    """

    wants_overlay = False

    def __init__(self, target: str, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        """Open `target` on entering.

        Args:
            target: a path, whose file is replaced, or `-`.
            stop: set when the reader of standard output has gone (`… | head`).
            clock: the clock of `Frame.captured_at`.
        """
        self._target = target
        self._stop = stop
        self._clock = clock
        self._file: TextIO = sys.stdout
        self._progress: Progress | None = None
        self._whole_bytes = 0

    def __enter__(self) -> Self:
        if self._target != "-":
            path = Path(self._target)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("w", encoding="utf-8", newline="\n")
            except OSError as error:
                raise UsageError(
                    f"--jsonl cannot write {path}: {error.strerror}. Name a file in a folder of yours, or - for "
                    "standard output."
                ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        try:
            if self._progress is not None:
                self._put({"summary": self._progress.summary().as_record()})
        finally:
            if self._target != "-":
                self._file.close()

    def write(self, answer: Answer, progress: Progress) -> None:
        """Write one line."""
        age_now_s = self._clock() - answer.frame.captured_at
        self._progress = progress
        self._put(record(answer, age_now_s, datetime.now(UTC)))

    def _put(self, line: dict[str, Any]) -> None:
        text = printable_json(line) + "\n"
        try:
            self._file.write(text)
            self._file.flush()
            self._whole_bytes += len(text.encode())
        except BrokenPipeError:
            self._stop.set()
            self._progress = None
            self._silence()
        except OSError as error:
            self._progress = None
            self._silence()
            if self._target == "-":
                raise KdedgeError(f"Standard output takes no more lines: {error.strerror}.") from error
            # What there was room for of the line that failed; a pipe has no such thing.
            with suppress(OSError):
                os.truncate(self._target, self._whole_bytes)
            raise KdedgeError(
                f"--jsonl cannot write to {self._target} any more: {error.strerror}. The lines before are whole."
            ) from error

    def _silence(self) -> None:
        """What is still buffered goes nowhere, instead of failing again when the file is closed."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())


def _fractions(frame: Frame) -> list[float]:
    assert frame.truth is not None
    height, width = frame.rgb.shape[:2]
    return [round(edge / side, 4) for edge, side in zip(frame.truth.box, (width, height, width, height), strict=True)]


def _heat(answer: Answer) -> dict[str, float | None] | None:
    if answer.heat is None:
        return None
    values = {key.removesuffix("_frac"): value for key, value in asdict(answer.heat).items()}
    return {key: None if value is None else round(value, 4) for key, value in values.items()}

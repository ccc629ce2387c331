"""One line of JSON a frame: the answer and where it came from, at about 200 bytes."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from kdedge_runtime.answer import Answer
from kdedge_runtime.errors import UsageError
from kdedge_runtime.progress import Progress

__all__ = ["JsonLines", "record"]


def record(answer: Answer, age_now_s: float, now: datetime) -> dict[str, Any]:
    """An answer as the object of its line.

    Args:
        answer: what the model said.
        age_now_s: seconds since the frame was captured.
        now: the time at this moment, in UTC.
    """
    return {
        "frame": answer.frame.index,
        "name": answer.frame.name,
        "time": (now - timedelta(seconds=age_now_s)).isoformat(timespec="milliseconds"),
        "age_ms": round(answer.age_ms, 2),
        "label": answer.label,
        "p": round(answer.probability, 5),
        "explained": answer.explained,
        "heat": _heat(answer),
    }


class JsonLines:
    """Writes `record`s to a file, or to standard output for `-`, each flushed at once.

    `time` is when the frame was captured, `age_ms` how old it was when it was answered. `heat` holds `cx` and `cy`
    (centre of the evidence as fractions of the frame, from its upper left corner), `area` (share of the map above half
    of its maximum) and `entropy` (0 one cell, 1 everywhere). It is null for a model without a map; its parts are
    null where nothing speaks for the class.
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

    def __enter__(self) -> Self:
        if self._target != "-":
            path = Path(self._target)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("w", encoding="utf-8")
            except OSError as error:
                raise UsageError(
                    f"--jsonl cannot write {path}: {error.strerror}. Name a file in a folder of yours, or - for "
                    "standard output."
                ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._target != "-":
            self._file.close()

    def write(self, answer: Answer, progress: Progress) -> None:
        """Write one line."""
        age_now_s = self._clock() - answer.frame.captured_at
        line = json.dumps(record(answer, age_now_s, datetime.now(UTC)), ensure_ascii=False, allow_nan=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except BrokenPipeError:
            self._stop.set()
            # What is still buffered goes nowhere, instead of failing again when the interpreter exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())


def _heat(answer: Answer) -> dict[str, float | None] | None:
    if answer.heat is None:
        return None
    values = {key.removesuffix("_frac"): value for key, value in asdict(answer.heat).items()}
    return {key: None if value is None else round(value, 4) for key, value in values.items()}

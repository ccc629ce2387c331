"""Progress line for terminals."""

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sinks.prediction_lines import prediction_text
from kdedge_runtime.stream.statistics import RunProgress

__all__ = ["StatusLine"]

_EVERY_S = 0.2


class StatusLine:
    """Rewrites one terminal line five times a second and clears it at the end."""

    wants_overlay = False

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._rewrite("")

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Update the line, unless it was updated recently."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _EVERY_S
        counted = f"frame {prediction.frame.index + 1:,}"
        if progress.expected:
            share = 100 * (prediction.frame.index + 1) / progress.expected
            counted += f"/{progress.expected:,} ({share:.0f}%)"
        rates = [f"{progress.recent_fps:.1f} fps", f"{progress.dropped:,} dropped"]
        if progress.reconnects:
            rates.append(f"{progress.reconnects:,} reconnects")
        rates.append(f"{prediction.age_ms:.0f} ms old")
        answers = [prediction_text(each) for each in prediction.by_region]
        # A narrow terminal truncates the line at its end, where the answers of several regions would be lost.
        parts = [counted, *rates, *answers] if prediction.region is None else [counted, *answers, *rates]
        self._rewrite(" · ".join(parts))

    def _rewrite(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r\x1b[2K" + text[:width])
        self._stream.flush()

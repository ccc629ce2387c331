"""Windows of a sensor that sends line after line, with a warning when it stops."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.live_source import Backoff
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.sources.timeseries.cutter import WindowCutter, longest_gap_s
from kdedge_runtime.sources.timeseries.lines import Lines
from kdedge_runtime.sources.timeseries.row_parser import RowParser
from kdedge_runtime.sources.timeseries.series_rows import SeriesRow

if TYPE_CHECKING:
    from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["LiveSeries"]

_log = logging.getLogger(__name__)
_WAIT_S = 0.1
_SILENCE_S, _SILENT_PERIODS = 2.0, 10.0
"""Time without a row after which a sensor counts as stopped: in seconds and in periods, whichever is longer."""
_JITTER_S = 0.5
"""Longest delay of rows without timestamps that is not a gap, in seconds; senders and drivers buffer rows."""
_WAITING = 65_536
"""Lines that wait to be read at most."""
_MAX_FAULTS = 20
"""Lines without a row in succession, after which the source fails: it sends something else."""


_Received: TypeAlias = tuple[float, str | int | SourceError | None]
"""Time of arrival, and a line, the number of lines that were dropped, the reason of a failure, or None at the end."""


class LiveSeries:
    """Windows of rows that arrive over time.

    A window is returned when its last row arrives, and never twice, so that no answer is about data from before a stop.
    After a stop, a new window is filled from its first row on. A lost connection is opened again.
    """

    live = True
    paths: tuple[Path, ...] = ()
    expected: int | None = None

    def __init__(
        self,
        spec: "TimeseriesInput",
        name: str,
        connect: Callable[[], Lines],
        hop: int,
        stop: threading.Event | None = None,
        *,
        reopens: bool = False,
        silence_s: float | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Create a source. Entering connects.

        Args:
            spec: input of the model.
            name: name of the source in messages.
            connect: function that opens the connection; raises `SourceError` on failure.
            hop: rows between the starts of two windows.
            stop: event that ends the wait for rows.
            reopens: True to open a lost connection again; False ends the source with its lines.
            silence_s: time without a row after which a sensor counts as stopped; None for the default.
            backoff: delays between attempts to connect; None for the default.
        """
        self.name = name
        self.fps: float | None = None
        self.reconnects = 0
        self.dropped = 0
        """Lines that were dropped on their way."""
        self.unreadable = 0
        """Lines without a row, and windows that were dropped."""
        self._spec, self._connect, self._hop = spec, connect, hop
        self._stop = stop or threading.Event()
        self._closed = threading.Event()
        self._reopens = reopens
        period_s = 0.0 if spec.rate_hz is None else 1 / spec.rate_hz
        self._silence_s = max(_SILENCE_S, _SILENT_PERIODS * period_s) if silence_s is None else silence_s
        self._backoff = backoff or Backoff()
        self._lines: Lines | None = None
        self._received: queue.Queue[_Received] = queue.Queue(_WAITING)
        self._faults = 0
        self._longest_s = longest_gap_s(spec.rate_hz) + _JITTER_S
        self._heard_at = time.monotonic()
        self._is_silent = False

    def __enter__(self) -> Self:
        self._lines = self._connect()
        self._read(self._lines)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._closed.set()
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def __iter__(self) -> Iterator[Frame]:
        spec = self._spec
        parser = RowParser(spec.channels, self.name, spec.channel_units)
        cutter = WindowCutter(spec.length, self._hop, spec.rate_hz, self.name)
        self._heard_at, index = time.monotonic(), 0
        while not self._closed.is_set() and not self._stop.is_set():
            try:
                arrived_at, received = self._received.get(timeout=_WAIT_S)
            except queue.Empty:
                self._notice_silence(time.monotonic(), cutter)
                continue
            self._notice_silence(arrived_at, cutter)
            if isinstance(received, int):
                self.dropped += received
                cutter.interrupt("lost")
                continue
            if not isinstance(received, str):
                if not self._reopens or not self._reconnect(received):
                    if received is not None and not self._closed.is_set():
                        raise received
                    return
                cutter.interrupt("silence")
                continue
            faults = self.unreadable
            row = self._row(parser, received)
            if row is None:
                if self.unreadable > faults:
                    cutter.interrupt("lost")
                continue
            before = sum(cutter.breaks.values())
            if row.time_s is None and arrived_at - self._heard_at > self._longest_s:
                cutter.interrupt("gap")
            self._heard_at = arrived_at
            if self._is_silent:
                _log.warning("%s sends rows again", self.name)
                self._is_silent = False
            window = cutter.push(row.time_s, row.values)
            self.unreadable += sum(cutter.breaks.values()) - before
            if window is not None:
                yield Frame(index, window.values, arrived_at, f"window-{index:06d}", span_s=window.span_s)
                index += 1

    def _notice_silence(self, now: float, cutter: WindowCutter) -> None:
        silent_s = now - self._heard_at
        if silent_s > self._silence_s and not self._is_silent:
            self._is_silent = True
            cutter.interrupt("silence")
            _log.warning("%s: no rows for %.1f s; no predictions until rows arrive", self.name, silent_s)

    def _row(self, parser: RowParser, line: str) -> SeriesRow | None:
        """Parse a line; None for a header, or for a line without a row, which is counted.

        Raises:
            SourceError: many lines in succession have no row.
        """
        try:
            row = parser.parse(line)
        except SourceError as error:
            self.unreadable += 1
            self._faults += 1
            if self._faults == 1:
                _log.warning("skipped: %s", error)
            if self._faults >= _MAX_FAULTS:
                raise
            return None
        if row is not None:
            self._faults = 0
        return row

    def _read(self, lines: Lines) -> None:
        """Read lines in a thread, because a read may block."""
        received = self._received

        def read() -> None:
            end: SourceError | None = None
            try:
                for line in lines:
                    received.put((time.monotonic(), line))
            except SourceError as error:
                end = error
            except Exception as error:  # else the run would wait forever
                end = SourceError(f"{self.name} cannot be read ({error}). Expected lines of text.")
            received.put((time.monotonic(), end))

        threading.Thread(target=read, name="kdedge-series", daemon=True).start()

    def _reconnect(self, reason: SourceError | None) -> bool:
        """Open the connection again; False if the run is stopping.

        Raises:
            SourceError: it cannot be opened for longer than `Backoff.timeout_s`.
        """
        lost_at = time.monotonic()
        if not self._closed.is_set() and not self._stop.is_set():
            _log.warning("%s disconnected, reconnecting (%s)", self.name, reason or "no more lines")
        attempt = 0
        while not self._closed.is_set() and not self._stop.wait(self._backoff.delay_s(attempt)):
            attempt += 1
            try:
                self._lines = self._connect()
            except SourceError:
                if time.monotonic() - lost_at > self._backoff.timeout_s:
                    raise
                continue
            self._received = queue.Queue(_WAITING)
            self._read(self._lines)
            self.reconnects += 1
            _log.warning("%s reconnected after %.1f s", self.name, time.monotonic() - lost_at)
            return True
        return False

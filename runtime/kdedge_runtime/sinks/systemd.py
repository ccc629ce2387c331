"""systemd notifications over the socket in `NOTIFY_SOCKET`; see sd_notify(3) and `devices/systemd/`."""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.counts import counted

__all__ = ["SystemdNotifier"]

_log = logging.getLogger(__name__)


class SystemdNotifier:
    """Sink that sends READY with the first prediction and notifies the watchdog for fresh frames only.

    The watchdog is not notified if the program hangs, the camera delivers no frames, or frames are too old when
    predicted. systemd then restarts the service. If the socket is not reachable, the run continues and one warning is
    logged.
    """

    wants_overlay = False

    def __init__(self, address: str, watchdog_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a notifier.

        Args:
            address: value of `NOTIFY_SOCKET`; a leading @ denotes an abstract socket.
            watchdog_s: watchdog timeout in seconds; None if there is no watchdog.
            clock: monotonic clock in seconds.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._clock = clock
        self._is_ready = self._is_unheard = False
        self._petted_s = -float("inf")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Create a notifier from systemd's environment variables; None if systemd expects no notifications."""
        address, watchdog_us = environment.get("NOTIFY_SOCKET"), environment.get("WATCHDOG_USEC", "")
        if not address:
            return None
        is_for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(address, int(watchdog_us) / 1e6 if is_for_us and watchdog_us.isdecimal() else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._send("STOPPING=1")

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Send READY and WATCHDOG as warranted by a prediction."""
        if not self._is_ready:
            self._send("READY=1")
            self._is_ready = True
        if self._watchdog_s is None or prediction.age_ms / 1e3 > self._watchdog_s / 2:
            return
        now_s = self._clock()
        if now_s - self._petted_s >= self._watchdog_s / 4:
            status = (
                f"{counted(progress.frames, 'frame')}, {progress.recent_fps:.1f} fps, {prediction.age_ms:.0f} ms old"
            )
            self._send(f"WATCHDOG=1\nSTATUS={status}")
            self._petted_s = now_s

    def _send(self, message: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            try:
                connection.connect(self._address)
                connection.sendall(message.encode())
            except OSError as error:
                if not self._is_unheard:
                    _log.warning("systemd's NOTIFY_SOCKET is not reachable: %s", error.strerror or error)
                self._is_unheard = True

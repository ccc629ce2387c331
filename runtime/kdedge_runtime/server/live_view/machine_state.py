"""Cached machine state: board state and process memory."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from kdedge_runtime.diagnostics.system_state import SystemState, read_system_state
from kdedge_runtime.util.process import memory_mb

__all__ = ["MachineMonitor", "MachineState"]

_KEPT_S = 2.0


@dataclass(frozen=True)
class MachineState:
    """Machine state at one time."""

    board: SystemState
    memory_mb: float | None
    """Resident memory of this process in MB (10^6 bytes), or None if unavailable."""


class MachineMonitor:
    """Reads the machine state at most every two seconds, because a firmware query starts a process."""

    def __init__(
        self, read_state: Callable[[], SystemState] = read_system_state, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read_state = read_state
        self._clock = clock
        self._lock = threading.Lock()
        self._state: MachineState | None = None
        self._seen_at = 0.0

    def state(self) -> MachineState:
        """Return the machine state, at most two seconds old."""
        with self._lock:
            if self._state is None or self._clock() - self._seen_at >= _KEPT_S:
                self._state, self._seen_at = MachineState(self._read_state(), memory_mb()), self._clock()
            return self._state

"""How the machine is doing, for whoever asks and however often: the board's own word, and this process' memory."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from kdedge_runtime.diagnostics.system_state import BoardState, read_board
from kdedge_runtime.util.process import memory_mb

__all__ = ["Machine", "MachineState"]

_KEPT_S = 2.0


@dataclass(frozen=True)
class MachineState:
    """The machine at one moment."""

    board: BoardState
    memory_mb: float | None
    """Resident memory of this process, in 10^6 bytes; None where the system does not tell."""


class Machine:
    """Looks at this machine at most every two seconds, since asking a board's firmware starts a program."""

    def __init__(
        self, look: Callable[[], BoardState] = read_board, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._state: MachineState | None = None
        self._seen_at = 0.0

    def state(self) -> MachineState:
        """The state, not older than two seconds."""
        with self._lock:
            if self._state is None or self._clock() - self._seen_at >= _KEPT_S:
                self._state, self._seen_at = MachineState(self._look(), memory_mb()), self._clock()
            return self._state

"""How the board is doing: temperature, throttling and memory, as far as its system tells."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "MachineState", "throttling"]

_KEPT_S = 2.0
_COMMAND_S = 1.0
_FLAGS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of `vcgencmd get_throttled`; 16 higher they tell of the time since the start.

https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
"""
_SINCE_START = 16


@dataclass(frozen=True)
class MachineState:
    """The board at one moment."""

    temperature_c: dict[str, float]
    """By the name of the thermal zone, in °C."""
    throttled_now: tuple[str, ...] | None
    """Why the board runs slower than it could; None where it does not tell."""
    throttled_before: tuple[str, ...] | None
    """The same at any time since it was started."""
    memory_mb: float | None
    """Resident memory of this process, in 10^6 bytes."""


def throttling(bits: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the bits of `vcgencmd get_throttled` mean, as `(now, since the start)`."""
    now = tuple(name for bit, name in _FLAGS.items() if bits >> bit & 1)
    return now, tuple(name for bit, name in _FLAGS.items() if bits >> (bit + _SINCE_START) & 1)


class Machine:
    """Reads the state of this machine, at most every two seconds however many ask."""

    def __init__(self, system: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        """Look at a system.

        Args:
            system: the root of its files.
            clock: in seconds.
        """
        self._zones = sorted((system / "sys/class/thermal").glob("thermal_zone*"))
        self._firmware = system / "sys/devices/platform/soc/soc:firmware/get_throttled"
        self._memory = system / "proc/self/statm"
        self._vcgencmd = shutil.which("vcgencmd")
        self._clock = clock
        self._lock = threading.Lock()
        self._state: MachineState | None = None
        self._read_at = 0.0

    def state(self) -> MachineState:
        """The state, not older than two seconds."""
        with self._lock:
            if self._state is None or self._clock() - self._read_at >= _KEPT_S:
                self._state, self._read_at = self._read(), self._clock()
            return self._state

    def _read(self) -> MachineState:
        bits = self._throttled_bits()
        now, before = (None, None) if bits is None else throttling(bits)
        return MachineState(self._temperatures(), now, before, self._memory_mb())

    def _temperatures(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for zone in self._zones:
            kind, millidegrees = _text(zone / "type"), _number(_text(zone / "temp"))
            # Sensors that are off say 0, or what no running board survives.
            if millidegrees is not None and 0 < millidegrees < 150_000:
                name = kind or zone.name
                found[f"{name} ({zone.name})" if name in found else name] = millidegrees / 1e3
        return found

    def _throttled_bits(self) -> int | None:
        # The command first: the kernel's file can say 0 where the command does not (raspberrypi/linux#2367).
        if self._vcgencmd is not None:
            try:
                told = subprocess.run(
                    [self._vcgencmd, "get_throttled"], capture_output=True, text=True, timeout=_COMMAND_S, check=True
                ).stdout
                return int(told.strip().removeprefix("throttled="), 16)
            except (OSError, subprocess.SubprocessError, ValueError):
                self._vcgencmd = None  # no such board, or not allowed: it will not work the next time either
        return _number(_text(self._firmware), 16)

    def _memory_mb(self) -> float | None:
        fields = (_text(self._memory) or "").split()
        pages = _number(fields[1]) if len(fields) > 1 else None
        return None if pages is None else pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # also from sensors that are there and do not answer
        return None


def _number(text: str | None, base: int = 10) -> int | None:
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None

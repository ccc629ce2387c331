"""Board state: temperature, clock frequency and throttling.

Linux reports it in sysfs, and the Raspberry Pi's firmware also through `vcgencmd`. Unavailable values are None or
empty, never estimated.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SystemState", "Throttling", "read_system_state"]

_ROOT = Path("/")
_FIRMWARE_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
"""Bits 0 to 3 of the Raspberry Pi's `get_throttled`: current state. Bits 16 to 19: events since boot.

Source: raspberrypi.com documentation, vcgencmd, get_throttled.
"""
_CPU_ZONES = ("cpu", "x86_pkg_temp", "soc")
_CPU_SENSORS = ("coretemp", "k10temp", "cpu_thermal", "zenpower")


@dataclass(frozen=True)
class SystemState:
    """One reading of the board state."""

    temperature_c: float | None
    """Temperature of the hottest CPU sensor, in °C."""
    clock_mhz: float | None
    """Current clock frequency of the slowest core, in MHz."""
    max_clock_mhz: float | None
    """Maximum clock frequency of the slowest core, in MHz."""
    throttled: tuple[str, ...]
    """Active throttling reasons; empty if there are none or none are reported."""
    throttled_since_boot: tuple[str, ...]
    """Throttling reasons since boot, as reported by a Raspberry Pi."""
    throttle_events: int | None
    """Number of thermal throttling events of x86 cores since boot; None elsewhere."""

    def __str__(self) -> str:
        parts = []
        if self.temperature_c is not None:
            parts.append(f"{self.temperature_c:.0f} °C")
        if self.clock_mhz is not None:
            of = f" of {self.max_clock_mhz:.0f}" if self.max_clock_mhz is not None else ""
            parts.append(f"{self.clock_mhz:.0f}{of} MHz")
        parts += [f"now: {reason}" for reason in self.throttled]
        parts += [f"since boot: {reason}" for reason in self.throttled_since_boot if reason not in self.throttled]
        return ", ".join(parts) or "temperature and clock not available"


class Throttling:
    """Throttling reasons collected over a measurement."""

    def __init__(self, first: SystemState) -> None:
        self._first = first
        self._reasons = dict.fromkeys(first.throttled)

    def add(self, state: SystemState) -> None:
        """Add a later reading of the board state."""
        self._reasons |= dict.fromkeys(state.throttled)
        # A since-boot reason that is new occurred during the measurement.
        new = [reason for reason in state.throttled_since_boot if reason not in self._first.throttled_since_boot]
        self._reasons |= dict.fromkeys(new)
        if (state.throttle_events or 0) > (self._first.throttle_events or 0):
            self._reasons["throttled"] = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Throttling reasons, each once; empty if there were none."""
        return tuple(self._reasons)


def read_system_state(root: Path = _ROOT) -> SystemState:
    """Read the board state.

    Args:
        root: folder that contains `sys/`. Values other than `/` are for tests and skip the firmware query.
    """
    flags = _firmware_flags(root)
    now = [name for bit, name in enumerate(_FIRMWARE_BITS) if flags >> bit & 1]
    before = tuple(name for bit, name in enumerate(_FIRMWARE_BITS) if flags >> (16 + bit) & 1)
    if _FIRMWARE_BITS[0] not in now and _has_voltage_alarm(root):
        now.append(_FIRMWARE_BITS[0])
    if not now and _is_cooled_by_its_clock(root):
        now.append("frequency capped by heat")
    clocks, limits = _clocks_mhz(root, "scaling_cur_freq"), _clocks_mhz(root, "cpuinfo_max_freq")
    temperatures = list(_temperatures_c(root))
    return SystemState(
        temperature_c=max(temperatures, default=None),
        clock_mhz=min(clocks, default=None),
        max_clock_mhz=min(limits, default=None),
        throttled=tuple(now),
        throttled_since_boot=before,
        throttle_events=_throttle_events(root),
    )


def _read(path: Path) -> str:
    """Return the text of a kernel file, or an empty string if it cannot be read (e.g. a sleeping sensor)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.lstrip("-").isdecimal() else None


def _temperatures_c(root: Path) -> Iterator[float]:
    zones = [(_read(zone / "type"), zone / "temp") for zone in (root / "sys/class/thermal").glob("thermal_zone*")]
    sensors = [
        (_read(folder / "name"), file)
        for folder in (root / "sys/class/hwmon").glob("hwmon*")
        for file in folder.glob("temp*_input")
    ]
    of_cpu = [file for kind, file in zones if kind.lower().startswith(_CPU_ZONES)]
    of_cpu += [file for kind, file in sensors if kind in _CPU_SENSORS]
    for file in of_cpu:
        value = _number(file)
        if value is not None:
            yield value / 1000


def _clocks_mhz(root: Path, name: str) -> list[float]:
    values = [_number(path) for path in (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}")]
    return [value / 1000 for value in values if value is not None]


def _firmware_flags(root: Path) -> int:
    """Return `get_throttled` of a Raspberry Pi, or 0 elsewhere.

    The kernel's copy is only as recent as its last poll (raspberrypi/linux issue 2367), so the firmware is queried too.
    """
    flags = 0
    for path in (root / "sys/devices/platform").glob("soc*/*firmware/get_throttled"):
        flags |= _hexadecimal(_read(path))
    if root == _ROOT and shutil.which("vcgencmd"):
        try:
            output = subprocess.run(
                ["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=2, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            output = ""
        flags |= _hexadecimal(output.strip().removeprefix("throttled="))
    return flags


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _has_voltage_alarm(root: Path) -> bool:
    """Return True if the kernel's Raspberry Pi supply driver reports under-voltage."""
    return any(
        _read(folder / "name") == "rpi_volt" and _read(folder / "in0_lcrit_alarm") == "1"
        for folder in (root / "sys/class/hwmon").glob("hwmon*")
    )


def _is_cooled_by_its_clock(root: Path) -> bool:
    """Return True if the kernel's thermal governor has lowered a CPU clock."""
    return any(
        "cpufreq" in _read(device / "type") and (_number(device / "cur_state") or 0) > 0
        for device in (root / "sys/class/thermal").glob("cooling_device*")
    )


def _throttle_events(root: Path) -> int | None:
    folder = root / "sys/devices/system/cpu"
    counts = [_number(path) for path in folder.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None

"""Machine detection: cores, instruction sets and matching device profile."""

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from kdedge_runtime.devices.profile import DeviceProfile, Instruction, load_profile, profile_names
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.util.counts import counted

__all__ = ["GENERIC", "MachineInfo", "detect_machine", "find_profile", "machine_name", "profile_for"]

GENERIC = "generic"
_ROOT = Path("/")
_FLAGS: dict[str, Instruction] = {
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",
    "avx2": "avx2",
    "FEAT_DotProd": "dotprod",
    "FEAT_I8MM": "i8mm",
}
"""Instruction names of Linux (`/proc/cpuinfo`) and macOS (`sysctl hw.optional.arm`)."""
_ARM_CORES = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd42": "Cortex-A78AE"}
"""`CPU part` of `/proc/cpuinfo`; source: Linux, arch/arm64/include/asm/cputype.h."""


@dataclass(frozen=True)
class MachineInfo:
    """Properties of a machine; None if unknown."""

    board: str | None
    """Device tree name, such as `Raspberry Pi 5 Model B Rev 1.0`."""
    cpu: str | None
    architecture: str
    """Architecture as in `platform.machine()`: `aarch64`, `x86_64`, `arm64`, …"""
    cores: int | None
    """Number of cores available to this process."""
    instructions: tuple[Instruction, ...]
    ram_mb: int | None

    @property
    def processor(self) -> str:
        """Processor description, such as `Cortex-A76, aarch64, 4 cores`."""
        cores = "? cores" if self.cores is None else counted(self.cores, "core")
        return f"{self.cpu or 'unknown'}, {self.architecture}, {cores}"

    @property
    def name(self) -> str:
        """Machine description, such as `Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76, aarch64, 4 cores)`."""
        return self.processor if self.board in (None, self.cpu) else f"{self.board} ({self.processor})"

    def rows(self) -> dict[str, str]:
        """Return the properties as text by name."""
        return {
            "board": self.board or "unknown",
            "CPU": self.processor,
            "instructions": ", ".join(self.instructions) or "none used by int8 kernels",
            "RAM": f"{self.ram_mb:,} MB" if self.ram_mb else "unknown",
        }


def detect_machine(root: Path = _ROOT, read_sysctl: Callable[[str], str] | None = None) -> MachineInfo:
    """Detect the machine.

    Args:
        root: folder that contains `proc/` and `sys/`.
        read_sysctl: function that returns the value of a `sysctl` name, or an empty string. None calls `sysctl`, on
            macOS only.
    """
    if read_sysctl is None and platform.system() == "Darwin":
        read_sysctl = _sysctl
    if read_sysctl is not None:
        return _detect_macos(read_sysctl)
    board = _read(root / "sys/firmware/devicetree/base/model") or _read(root / "proc/device-tree/model")
    info = _cpuinfo(root)
    flags = set(info.get("flags", info.get("Features", "")).split())
    return MachineInfo(
        board=board.rstrip("\0").strip() or None,
        # Some kernels name every ARM core "ARMv8 Processor rev 4 (v8l)".
        cpu=_ARM_CORES.get(info.get("CPU part", "")) or info.get("model name"),
        architecture=platform.machine(),
        cores=_usable_cores(),
        instructions=_ordered({_FLAGS[flag] for flag in flags & _FLAGS.keys()}),
        ram_mb=_ram_mb(root),
    )


def machine_name() -> str:
    """Return a description of this machine, reduced to what Python provides if detection fails."""
    try:
        return detect_machine().name
    except KdedgeError:
        return MachineInfo(None, None, platform.machine(), _usable_cores(), (), None).name


def profile_for(machine: MachineInfo) -> DeviceProfile:
    """Return the profile of a machine: by board, else by instruction sets, else `generic`."""
    profiles = [load_profile(name) for name in profile_names()]
    board = machine.board or ""
    fitting = [profile for profile in profiles if any(board.startswith(name) for name in profile.boards)]
    if not fitting:  # unknown board: most matching instruction sets
        fitting = [
            profile
            for profile in profiles
            if not profile.boards and profile.instructions and set(profile.instructions) <= set(machine.instructions)
        ]
    if fitting:
        return max(fitting, key=lambda profile: len(profile.instructions))
    return load_profile(GENERIC)


def find_profile(name: str) -> DeviceProfile:
    """Return the profile with a name, or the one of this machine for `auto`.

    Raises:
        UsageError: there is no profile with this name. The message names the closest match.
    """
    return profile_for(detect_machine()) if name == "auto" else load_profile(name)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpuinfo(root: Path) -> dict[str, str]:
    """Return the entries of the last core, by name."""
    pairs = (line.partition(":") for line in _read(root / "proc/cpuinfo").splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _ram_mb(root: Path) -> int | None:
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return round(int(value.split()[0]) * 1024 / 1e6)
    return None


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _ordered(found: set[Instruction]) -> tuple[Instruction, ...]:
    return tuple(name for name in get_args(Instruction) if name in found)


def _detect_macos(read: Callable[[str], str]) -> MachineInfo:
    found = {
        name for flag, name in _FLAGS.items() if flag.startswith("FEAT_") and read(f"hw.optional.arm.{flag}") == "1"
    }
    cpu, memory, cores = read("machdep.cpu.brand_string"), read("hw.memsize"), read("hw.physicalcpu")
    return MachineInfo(
        board=cpu if cpu.startswith("Apple ") else None,
        cpu=cpu or None,
        architecture=platform.machine(),
        cores=int(cores) if cores.isdecimal() else os.cpu_count(),
        instructions=_ordered(found),
        ram_mb=round(int(memory) / 1e6) if memory.isdecimal() else None,
    )


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KdedgeError(f"`sysctl {name}` failed on macOS ({error}). Name the device: --device NAME.") from error
    return done.stdout.strip()

"""What this process takes of the machine."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["memory_mb", "open_files", "peak_memory_mb"]

_STATM = Path("/proc/self/statm")
_DESCRIPTORS = (Path("/proc/self/fd"), Path("/dev/fd"))


def memory_mb() -> float | None:
    """Resident memory now, in MB; None on a system that does not tell."""
    if _STATM.exists():
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    if sys.platform == "darwin":
        told = subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=False)
        return int(told.stdout) * 1024 / 1e6 if told.stdout.strip().isdigit() else None
    return None


def peak_memory_mb() -> float | None:
    """The most resident memory that the process ever had, in MB; None on a system that does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    # kB on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def open_files() -> int | None:
    """Open file descriptors; None on a system that does not tell."""
    for folder in _DESCRIPTORS:
        if folder.is_dir():
            return sum(1 for _ in folder.iterdir())
    return None

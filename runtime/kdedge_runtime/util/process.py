"""Memory and open files of this process, and the end of child processes."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["end_process", "memory_mb", "open_files", "peak_memory_mb"]

_STATM = Path("/proc/self/statm")
_DESCRIPTORS = (Path("/proc/self/fd"), Path("/dev/fd"))
_JOIN_TIMEOUT_S = 2.0


def end_process(process: "subprocess.Popen[bytes]") -> None:
    """Terminate a child process, and kill it if it does not end within two seconds."""
    process.terminate()
    try:
        process.wait(_JOIN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def memory_mb() -> float | None:
    """Return the resident memory in MB, or None if unavailable."""
    if _STATM.exists():
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    if sys.platform == "darwin":
        completed = subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=False)
        return int(completed.stdout) * 1024 / 1e6 if completed.stdout.strip().isdigit() else None
    return None


def peak_memory_mb() -> float | None:
    """Return the peak resident memory in MB, or None if unavailable."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    # kB on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def open_files() -> int | None:
    """Return the number of open file descriptors, or None if unavailable."""
    for folder in _DESCRIPTORS:
        if folder.is_dir():
            return sum(1 for _ in folder.iterdir())
    return None

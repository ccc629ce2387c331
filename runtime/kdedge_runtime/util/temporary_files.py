"""Temporary files owned by a process, and cleanup of those left by killed processes."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["HAS_LOCKS", "find_abandoned", "mark_owned", "remove_abandoned", "scratch_folder", "try_lock"]

HAS_LOCKS = os.name == "posix"
"""True if open files can be locked. Windows cannot rename or remove open files either."""
_LOCK = "lock"


def mark_owned(descriptor: int) -> bool:
    """Lock an open file until it is closed or the process ends.

    Args:
        descriptor: descriptor of a newly created file.

    Returns:
        False if another process removed the file as abandoned before it was locked, else True.
    """
    return try_lock(descriptor) is not False and os.fstat(descriptor).st_nlink > 0


@contextmanager
def find_abandoned(path: Path) -> Iterator[bool]:
    """Yield True if the process that locked a file has ended. No other process can claim it within the block.

    Without file locks (Windows, some network drives) no file counts as abandoned.
    """
    try:
        file = path.open("rb")
    except OSError:
        yield False
        return
    with file:
        yield bool(try_lock(file.fileno()))


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Remove the abandoned files among `paths`."""
    for path in paths:
        with find_abandoned(path) as is_ours:
            if is_ours:
                path.unlink(missing_ok=True)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Yield an empty folder of this process, removed afterwards. Also removes abandoned folders of the same purpose.

    Args:
        purpose: part of the folder name.
    """
    prefix = f"kdedge-{purpose}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*/{_LOCK}"):
        with find_abandoned(left) as is_ours:
            if is_ours and left.parent.stat().st_uid == os.getuid():
                shutil.rmtree(left.parent, ignore_errors=True)
    while True:
        with (
            tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name,
            (Path(name) / _LOCK).open("wb") as lock,
        ):
            if mark_owned(lock.fileno()):
                yield Path(name)
                return


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder until it is closed or the process ends, without waiting.

    Returns:
        False if another opening of it holds the lock, None if locks are unavailable, else True.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        return None
    return True

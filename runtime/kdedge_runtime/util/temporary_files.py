"""Temporary files that belong to a process, and what processes that were killed have left of theirs."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["HAS_LOCKS", "abandoned", "mark_as_ours", "remove_abandoned", "scratch_folder"]

HAS_LOCKS = os.name == "posix"
"""Whether open files can be locked; Windows lets no open file be renamed or removed either."""
_LOCK = "lock"


def mark_as_ours(descriptor: int) -> bool:
    """Lock an open file until it is closed or the process ends, however it ends.

    Args:
        descriptor: of a file that was just made.

    Returns:
        Whether it is still there: False if another process took it for abandoned before it was locked.
    """
    return _lock(descriptor) is not False and os.fstat(descriptor).st_nlink > 0


@contextmanager
def abandoned(path: Path) -> Iterator[bool]:
    """Yield whether a file was marked by a process that no longer runs; within the block nobody else takes it so.

    Where there are no locks, on Windows or some network drives, no file is abandoned.
    """
    try:
        file = path.open("rb")
    except OSError:
        yield False
        return
    with file:
        yield bool(_lock(file.fileno()))


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Remove those files that are abandoned."""
    for path in paths:
        with abandoned(path) as is_ours:
            if is_ours:
                path.unlink(missing_ok=True)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Yield an empty folder of this process, and remove it and what killed processes left of the same purpose.

    Args:
        purpose: a part of its name.
    """
    prefix = f"kdedge-{purpose}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*/{_LOCK}"):
        with abandoned(left) as is_ours:
            if is_ours and left.parent.stat().st_uid == os.getuid():
                shutil.rmtree(left.parent, ignore_errors=True)
    while True:
        with (
            tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name,
            (Path(name) / _LOCK).open("wb") as lock,
        ):
            if mark_as_ours(lock.fileno()):
                yield Path(name)
                return


def _lock(descriptor: int) -> bool | None:
    """Lock an open file; False if another process has, None where there are no locks."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        return None
    return True

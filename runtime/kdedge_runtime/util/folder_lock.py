"""Lock of a folder, for files whose new content depends on the earlier one."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdedge_runtime.util.temporary_files import HAS_LOCKS, try_lock

__all__ = ["folder_lock"]

_POLL_S = 0.005


@contextmanager
def folder_lock(folder: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a folder within the block, so that programs and threads change its files one after another.

    The folder is locked, because an atomic write replaces the file. Without file locks (Windows, some network drives)
    the block runs at once.

    Args:
        folder: existing folder.
        timeout_s: maximum wait for other holders of the lock, in seconds.

    Raises:
        TimeoutError: another program held the lock for the whole time.
        OSError: the folder cannot be opened.
    """
    if not HAS_LOCKS:
        yield
        return
    handle, deadline = os.open(folder, os.O_RDONLY), time.monotonic() + timeout_s
    try:
        while try_lock(handle) is False:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"another program locked {folder} for {timeout_s:g} s")
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(handle)

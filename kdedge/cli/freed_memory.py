"""Freed memory of the GNU C library, kept in the process.

Training allocates the same tensors in every step. By default, glibc returns blocks of 128 kB to 32 MB and more to the
system as soon as they are freed, and every step then pays for fresh pages.
"""

import ctypes
import platform

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of `mallopt(3)`."""
LARGEST = 2**31 - 1
"""Bytes at the end of the heap that are kept; the largest `int`."""
STEP = 64 << 20
"""Bytes by which the heap grows."""


def keep_freed_memory() -> bool:
    """Reuse freed blocks of any size in this process; True if the C library is glibc and admits it.

    The process keeps its peak memory until it ends, so this is meant for commands and not for libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, LARGEST), (M_TOP_PAD, STEP))
    return bool(min(mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings) == 1)

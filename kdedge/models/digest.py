"""Hashes of weights files."""

from functools import lru_cache
from pathlib import Path

from kdedge_runtime.util.files import file_sha256

__all__ = ["state_sha256"]


def state_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal; cached while the file is unchanged."""
    found = path.stat()
    return _sha256(path.resolve(), found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=32)
def _sha256(path: Path, _modified_ns: int, _bytes: int) -> str:
    return file_sha256(path)

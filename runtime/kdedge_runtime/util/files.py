"""Atomic file writes and unique file names."""

import glob
import hashlib
import itertools
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.printable import printable
from kdedge_runtime.util.temporary_files import HAS_LOCKS, mark_owned, remove_abandoned

__all__ = [
    "Location",
    "UniqueNames",
    "file_sha256",
    "number_earlier",
    "remove_partial_files",
    "shorten",
    "atomic_path",
    "sync_folder",
    "utf8_path",
    "atomic_write",
    "displayable",
]

Location = str | os.PathLike[str]
"""Path of a file or folder, or an object that stands for one, such as a run."""
_STAGED = ".kdedge-"
"""Name prefix of files being written. It does not contain the target name, which may have maximum length."""

_MAX_STEM_BYTES = 251
"""Maximum stem length: most file systems limit names to 255 bytes, including the suffix."""


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path` and rename it to `path` after the block succeeds.

    The file is flushed to disk before the rename and its folder after it. Neither a crash nor a power failure leaves a
    partial file under the final name. The temporary file is removed on errors. Files left by killed processes are
    removed by the next durable call with the same suffix.

    Args:
        path: the final path.
        durable: False skips the flush, for files written per frame. A power failure may then leave a partial file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if durable:
        remove_abandoned(path.parent.glob(f"{_STAGED}*{glob.escape(path.suffix)}"))
    handle, temporary = _made(path)
    if not HAS_LOCKS:
        os.close(handle)
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        # mkstemp creates private files; restore the permissions of a plain open().
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        if HAS_LOCKS:
            os.close(handle)
        temporary.unlink(missing_ok=True)


def _made(path: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(prefix=_STAGED, suffix=path.suffix, dir=path.parent)
        if mark_owned(handle):
            return handle, Path(name)
        os.close(handle)


def remove_partial_files(folder: Path, suffixes: Iterable[str]) -> None:
    """Remove partial files left in a folder by killed processes, for these suffixes."""
    for suffix in suffixes:
        for left in folder.glob(f"{_STAGED}*{suffix}"):
            left.unlink()


def atomic_write(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    r"""Write `content` to `path` atomically. `durable` is as in `atomic_path`.

    Text is encoded as UTF-8. Surrogates, which stand for invalid bytes in paths, are written as escapes such as
    `\udce9`; JSON decodes them to the same path.
    """
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, reading it in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def displayable(name: str) -> str:
    r"""Return a printable file name that is identical on every machine.

    Accents are composed (NFC), because macOS decomposes them. Bytes that are not UTF-8 become escapes such as `\xe9`.
    Control characters, which could forge log lines, are escaped too.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return printable(unicodedata.normalize("NFC", text))


def shorten(stem: str) -> str:
    """Return a stem whose path components each leave room for a suffix.

    `written` needs four bytes for each byte that is not UTF-8. A component longer than 251 bytes is cut to at most 200
    bytes and a hash.
    """
    return "/".join(map(_shortened, stem.split("/")))


def _shortened(part: str) -> str:
    encoded = part.encode()
    if len(encoded) <= _MAX_STEM_BYTES:
        return part
    return f"{encoded[:200].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:16]}"


def utf8_path(path: Path, reader: str) -> str:
    """Return an absolute path as UTF-8 text, for libraries such as OpenCV that crash on other encodings.

    The path is absolute because FFmpeg parses a relative `12:30.mp4` as a URL.

    Args:
        path: the file.
        reader: name of the library, for the error message.

    Raises:
        UsageError: the name is not valid UTF-8.
    """
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The name of {displayable(str(path))} is not valid UTF-8, which {reader} requires. Rename the file."
        ) from error
    return name


class UniqueNames:
    """Generator of unique file names, so that `a/1.png` and `a/1.jpg` get different outputs.

    The result is deterministic, so that a second run overwrites the files of the first.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}

    def take(self, stem: str, suffix: str) -> str:
        """Return `stem` + `suffix`, adding `-2`, `-3`, … to the stem if the name is taken (case-insensitive)."""
        stem = shorten(stem)
        wanted = name = stem + suffix
        number = self._last.get(wanted.casefold(), 1)  # loops request the same name thousands of times
        while name.casefold() in self._taken:
            number += 1
            name = shorten(f"{stem}-{number}") + suffix
        self._last[wanted.casefold()] = number
        self._taken.add(name.casefold())
        return name


def number_earlier(path: Path, name: Path) -> Path | None:
    """Add a numbered name to a file, so that the original name can be replaced or removed.

    Args:
        path: the file, which may be missing.
        name: base of the new name `STEM-1.SUFFIX`; the first free number is used.

    Returns:
        The numbered path, or None if the file does not exist.
    """
    if not path.exists():
        return None
    numbers = itertools.count(1)
    while True:
        numbered = name.with_name(f"{name.stem}-{next(numbers)}{name.suffix}")
        with suppress(FileExistsError):
            try:
                numbered.hardlink_to(path)
            except FileExistsError:
                raise
            except OSError:  # FAT has no hard links
                with numbered.open("xb") as copy, path.open("rb") as file:
                    shutil.copyfileobj(file, copy)
            return numbered


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    if os.name != "posix":  # other systems cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

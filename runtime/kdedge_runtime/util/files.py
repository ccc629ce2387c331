"""Files that appear whole or not at all, under names that do not clash."""

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
from kdedge_runtime.util.temporary_files import HAS_LOCKS, mark_as_ours, remove_abandoned

__all__ = [
    "Location",
    "UniqueNames",
    "file_sha256",
    "number_earlier",
    "remove_staged",
    "shortened",
    "staged",
    "sync_folder",
    "utf8_path",
    "write_whole",
    "written",
]

Location = str | os.PathLike[str]
"""Path of a file or folder, or an object that stands for one, such as a run."""
_STAGED = ".kdedge-"
"""Begins the names of files that are being written: not the path's, which may be as long as there is room for."""

_MOST_STEM_BYTES = 251
"""Most file systems hold names of 255 bytes, suffix included."""


@contextmanager
def staged(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` once the block has succeeded.

    The file is flushed to the disk before the rename and the folder after it, so that neither a crash nor a
    power cut leaves a half-written file under the final name. On an error the temporary file is removed.
    What a killed process has left is removed by the next one that stages a durable file of this suffix there.

    Args:
        path: the final name.
        durable: False skips the flushing, for files that come by the frame: a crash of the program still leaves
            nothing half-written, a power cut may.
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
        # mkstemp makes private files; the result has the permissions that a plain open() would give.
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
        if mark_as_ours(handle):
            return handle, Path(name)
        os.close(handle)


def remove_staged(folder: Path, suffixes: Iterable[str]) -> None:
    """Remove what processes that were killed have left half-written in a folder, of files with these suffixes."""
    for suffix in suffixes:
        for left in folder.glob(f"{_STAGED}*{suffix}"):
            left.unlink()


def write_whole(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    r"""Write `content` to `path`, whole or not at all; `durable` as for `staged`.

    Text is written as UTF-8. Bytes in a path that are none, which Python holds as halves of characters, are written as
    such as `\udce9`: JSON reads that back as the same path.
    """
    with staged(path, durable=durable) as temporary:
        temporary.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal; it is not read into memory at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def written(name: str) -> str:
    r"""A file's name as the same text on every machine, which can be hashed, printed and put into a report.

    macOS decomposes accents, others do not; old archives leave bytes that are no UTF-8, which become such as `\xe9`.
    Control characters, which could forge a line of a log, are escaped the same way.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return printable(unicodedata.normalize("NFC", text))


def shortened(stem: str) -> str:
    """A stem whose parts each leave room for a suffix: `written` makes four bytes of one that is no UTF-8.

    A part of more than 251 bytes keeps its first 200 or fewer and a hash of all.
    """
    return "/".join(map(_shortened, stem.split("/")))


def _shortened(part: str) -> str:
    encoded = part.encode()
    if len(encoded) <= _MOST_STEM_BYTES:
        return part
    return f"{encoded[:200].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:16]}"


def utf8_path(path: Path, reader: str) -> str:
    """A path for a library that takes UTF-8 only: OpenCV dies of any other.

    It is absolute, since FFmpeg takes the colon of a relative one, as in `12:30.mp4`, for that of an address.

    Args:
        path: of a file.
        reader: the library, for the message.

    Raises:
        UsageError: the name is no UTF-8.
    """
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The name of {written(str(path))} is no UTF-8: {reader} takes no other. Rename it."
        ) from error
    return name


class UniqueNames:
    """Hands out file names that differ, so that `a/1.png` and `a/1.jpg` do not end in one output.

    The same names in the same order give the same result, so that a second run replaces the files of the first.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}

    def take(self, stem: str, suffix: str) -> str:
        """`stem` + `suffix`, with `-2`, `-3`, … after the stem where that is taken (also in other letter case)."""
        stem = shortened(stem)
        wanted = name = stem + suffix
        number = self._last.get(wanted.casefold(), 1)  # a loop asks for the same name thousands of times
        while name.casefold() in self._taken:
            number += 1
            name = shortened(f"{stem}-{number}") + suffix
        self._last[wanted.casefold()] = number
        self._taken.add(name.casefold())
        return name


def number_earlier(path: Path, name: Path) -> Path | None:
    """Give a file a second name, so that the first one may be replaced or removed.

    Args:
        path: the file; nothing is done where there is none.
        name: of which `STEM-1.SUFFIX`, or the next free number, is the second name.

    Returns:
        The second name; None where there is no file.
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
            except OSError:  # FAT, as on memory cards, has no links
                with numbered.open("xb") as copy, path.open("rb") as file:
                    shutil.copyfileobj(file, copy)
            return numbered


def sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk."""
    if os.name != "posix":  # other systems cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

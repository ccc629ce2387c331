"""Sound file behind a URL as a source of windows."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.sources.audio.sound_files import SoundFiles
from kdedge_runtime.sources.audio.windows import SoundWindows
from kdedge_runtime.sources.source import Frame

__all__ = ["DownloadedSound"]

_TIMEOUT_S = 10.0
_MAX_BYTES = 500_000_000
_CHUNK_BYTES = 1 << 20


class DownloadedSound:
    """Sound file that is downloaded to a temporary folder on entering. A stream without an end is refused."""

    live = False
    dropped = 0
    reconnects = 0
    expected: int | None = None
    paths: tuple[Path, ...] = ()

    def __init__(self, url: str, windows: SoundWindows, stop: threading.Event | None = None) -> None:
        """Create a source.

        Args:
            url: address of the file, `http` or `https`.
            windows: rate, length and interval of the windows.
            stop: event that ends the download.

        Raises:
            UsageError: the address has no host or no file name.
        """
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        self._file_name = PurePosixPath(unquote(parts.path)).name
        if not parts.hostname or not self._file_name:
            raise UsageError(f"--source {url} names no file. Expected an address such as http://HOST/sound.wav.")
        self.fps: float | None = 1 / windows.hop_s
        self._url, self._windows, self._stop = url, windows, stop or threading.Event()
        self._files: SoundFiles | None = None
        self._opened = ExitStack()

    @property
    def unreadable(self) -> int:
        """Number of unreadable files; a single one is an error."""
        return 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdedge-")))
            path = folder / self._file_name
            self._download(path)
            self._files = stack.enter_context(SoundFiles(path, self._windows))
            self._opened = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[Frame]:
        assert self._files is not None
        yield from self._files

    def _download(self, path: Path) -> None:
        try:
            with urlopen(self._url, timeout=_TIMEOUT_S) as answer, path.open("wb") as file:
                expected, received = self._length(answer), 0
                while chunk := answer.read(_CHUNK_BYTES):
                    received += len(chunk)
                    file.write(chunk)
                    if self._stop.is_set():
                        raise SourceError(f"The download of {self.name} was stopped after {received:,} bytes.")
        except (URLError, HTTPException, OSError, ValueError) as error:
            raise SourceError(f"{self.name} cannot be read: {error!r}. Check the address.") from error
        if received < expected:
            raise SourceError(
                f"{self.name} is truncated: {received:,} of {expected:,} bytes were received. Repeat the command."
            )

    def _length(self, answer: HTTPResponse) -> int:
        """Return the announced length in bytes; an answer without one may have no end."""
        if answer.length is None:
            raise SourceError(
                f"{self.name} has no announced length (Content-Length), so it may have no end. Expected a sound file, "
                "not a stream: download it, and use the file."
            )
        if answer.length > _MAX_BYTES:
            raise SourceError(
                f"{self.name} has {answer.length / 1e6:,.0f} MB. Expected at most {_MAX_BYTES // 1_000_000} MB: "
                "download it, and use the file."
            )
        return answer.length

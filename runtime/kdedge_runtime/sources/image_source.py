"""Image files and folders as a source."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import IMAGE_SUFFIXES, image_files, read_image

__all__ = ["ImageSource"]

_log = logging.getLogger(__name__)


class ImageSource:
    """One or several image files, or all images below a folder in path order.

    With several files, an unreadable one is logged, counted and skipped. A single unreadable image is an error.
    """

    live = False
    fps: float | None = None
    dropped = 0
    reconnects = 0

    def __init__(self, path: Path, files: tuple[Path, ...] = ()) -> None:
        """Create a source. Files are listed on entering.

        Args:
            path: an image, a folder, or a file name pattern.
            files: files matched by the pattern.
        """
        self.name = displayable(str(path))
        self.unreadable = 0
        self.expected: int | None = None
        self.paths = files or (path,)
        self._path = path
        self._named = files
        self._files: list[Path] = []
        self._logged: set[Path] = set()

    def __enter__(self) -> Self:
        is_folder = self._path.is_dir()
        self._files = list(self._named) or (image_files(self._path) if is_folder else [self._path])
        if not self._files:
            raise SourceError(
                f"The folder {self._path} contains no images. Expected files named *{', *'.join(IMAGE_SUFFIXES)} "
                "in it or below it."
            )
        self.expected = len(self._files)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._files = []

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self._files):
            yield from self._read(index, file)

    def _read(self, index: int, file: Path) -> list[Frame]:
        """Return the frame of a file, or nothing if it is skipped."""
        try:
            rgb = read_image(file)
        except SourceError as error:
            if len(self._files) == 1 and not self._path.is_dir():
                raise
            self.unreadable += 1
            if file not in self._logged:  # log once, not in every round of a loop
                self._logged.add(file)
                _log.warning("skipped: %s", error)
            return []
        name = file.relative_to(self._path) if self._path.is_dir() else Path(file.name)
        return [Frame(index, rgb, time.monotonic(), displayable(name.as_posix()))]

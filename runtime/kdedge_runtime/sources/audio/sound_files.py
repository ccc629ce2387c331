"""Sound files and folders as a source of windows."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.audio.windows import SoundWindows, sliding_windows
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import files_below
from kdedge_runtime.util.sounds import SOUND_SUFFIXES, is_sound_file, read_blocks, require_measured

__all__ = ["SoundFiles"]

_log = logging.getLogger(__name__)


class SoundFiles:
    """One sound file, or all below a folder in path order, each cut into windows.

    Files are decoded block by block. Windows that contain only zeros are left out, since nothing was measured; a file
    without any other window, or shorter than a tenth of a window, is unreadable. In a folder, an unreadable file is
    logged, counted and skipped. A single unreadable file is an error.
    """

    live = False
    dropped = 0
    reconnects = 0
    expected: int | None = None

    def __init__(self, path: Path, windows: SoundWindows) -> None:
        """Create a source. Files are listed on entering.

        Args:
            path: a sound file or a folder.
            windows: rate, length and interval of the windows.
        """
        self.name = displayable(str(path))
        self.unreadable = 0
        self.paths = (path,)
        # Windows of one file follow one another in time; those of a folder do not.
        self.fps: float | None = None if path.is_dir() else 1 / windows.hop_s
        self._path = path
        self._windows = windows
        self._files: list[Path] = []
        self._logged: set[Path] = set()

    def __enter__(self) -> Self:
        is_folder = self._path.is_dir()
        self._files = sorted(filter(is_sound_file, files_below(self._path))) if is_folder else [self._path]
        if not self._files:
            raise SourceError(
                f"The folder {self._path} contains no sounds. Expected files named *{', *'.join(SOUND_SUFFIXES)} in it "
                "or below it."
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._files = []

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for file in self._files:
            for frame in self._read(index, file):
                yield frame
                index = frame.index + 1

    def _read(self, index: int, file: Path) -> Iterator[Frame]:
        """Yield the windows of a file; of an unreadable file in a folder those before the damage."""
        rate_hz = self._windows.rate_hz
        name = displayable((file.relative_to(self._path) if self._path.is_dir() else Path(file.name)).as_posix())
        try:
            cut = sliding_windows(read_blocks(file, rate_hz), self._windows)
            is_silent = True
            for number, (start, sound) in enumerate(cut):
                if not sound.any():
                    continue
                require_measured(sound, self._windows.length, str(file))
                is_silent = False
                span = start / rate_hz, (start + len(sound)) / rate_hz
                yield Frame(index + number, sound, time.monotonic(), f"{name}#{number}", span_s=span)
            if is_silent:
                require_measured(np.zeros(0, np.float32), self._windows.length, str(file))
        except SourceError as error:
            if not self._path.is_dir():
                raise
            self.unreadable += 1
            if file not in self._logged:  # log once, not in every round of a loop
                self._logged.add(file)
                _log.warning("skipped: %s", error)

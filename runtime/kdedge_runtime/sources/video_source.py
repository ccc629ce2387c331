"""Video files as a source, with unreadable frames counted."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.camera import without_password
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.files import utf8_path
from kdedge_runtime.util.opencv import load_opencv

__all__ = ["VideoSource"]

_log = logging.getLogger(__name__)
_TRIES_AFTER_A_FAILED_READ = 30


class VideoSource:
    """Frames of a video file, in order.

    If a read fails before the end, the next frames are tried. Frames given and frames unreadable add up to at least the
    container's frame count, which some containers only estimate.
    """

    live = False
    dropped = 0
    reconnects = 0

    def __init__(self, path: str | Path) -> None:
        """Create a source. Entering opens the file.

        Args:
            path: file path or URL.
        """
        self.name = without_password(str(path))
        self.fps: float | None = None
        self.expected: int | None = None
        self.unreadable = 0
        self._address = str(path)
        self.paths = () if "://" in self._address else (Path(path),)
        self._stem = Path(self.name).stem
        self._cv2: Any = None
        self._capture: Any = None
        self._has_logged = False

    def __enter__(self) -> Self:
        self._cv2 = cv2 = load_opencv("Reading a video")
        is_url = "://" in self._address
        self._capture = cv2.VideoCapture(self._address if is_url else utf8_path(Path(self._address), "OpenCV"))
        if not self._capture.isOpened():
            raise SourceError(
                f"{self.name} cannot be opened as a video. Expected an image, a folder of images or a video that "
                "OpenCV decodes. Check the file, or convert it: `ffmpeg -i FILE -c:v libx264 out.mp4`."
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(fps) if 0 < fps < 1000 else None
        promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.expected = promised if promised > 0 else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __iter__(self) -> Iterator[Frame]:
        index = given = 0
        while (skipped := self._advance(index)) is not None:
            index += skipped
            self.unreadable += skipped
            read, bgr = self._capture.retrieve()
            captured_at = time.monotonic()
            if read:
                rgb = self._cv2.cvtColor(bgr, self._cv2.COLOR_BGR2RGB)
                yield Frame(index, rgb, captured_at, f"{self._stem}-{index:06d}")
                given += 1
            else:
                self.unreadable += 1
            index += 1
        if self.expected is not None and index < self.expected:
            self.unreadable += self.expected - index
            if not self._has_logged:  # log once, not in every round of a loop
                _log.warning(
                    "%s declares %d frames, but %d could be read: the file is damaged, or its count is an estimate",
                    self.name,
                    self.expected,
                    given,
                )
            self._has_logged = True
        if not given:
            raise SourceError(
                f"No frame of {self.name} can be decoded. Check the file, or convert it: "
                "`ffmpeg -i FILE -c:v libx264 out.mp4`."
            )

    def _advance(self, index: int) -> int | None:
        """Advance to the next readable frame. Return the number of skipped frames, or None at the end."""
        remaining = self.expected - index if self.expected is not None else 1
        for skipped in range(max(1, min(remaining, _TRIES_AFTER_A_FAILED_READ))):
            if self._capture.grab():
                return skipped
        return None

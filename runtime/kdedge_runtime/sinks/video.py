"""The overlay as an MP4 file."""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from kdedge_runtime.answer import Answer
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.files import staged, utf8_path
from kdedge_runtime.opencv import load_opencv
from kdedge_runtime.progress import Progress

__all__ = ["VideoFile"]

_FALLBACK_FPS = 25.0
_RESERVE_BYTES = 16 * 2**20
"""Room that is left on the disk for the film's index, which comes last, and for everybody else."""
_LOOK_EVERY_S = 1.0
_MOST_THOUSANDTHS = 65_535
_LONGEST_GAP_S = 10.0
"""A longer time without frames, while a camera was away, is shortened to this."""


class VideoFile:
    """Writes overlays to an MP4 that appears under its name once it is whole.

    A picture stays until the next one's time, so that the film runs at the speed of the world: a live source gives
    fewer frames than its rate says when the model is slower, and frames that are not explained are not drawn.

    When the disk is nearly full the film is ended there and the run with it. An error of anything else ends the film
    too; in both cases what was recorded is kept. A film of no frame is dropped. An earlier film of the same name is
    kept as `film-1.mp4`, or the next free number.
    """

    wants_overlay = True

    def __init__(self, path: Path, fps: float | None, *, live: bool) -> None:
        """Prepare to write.

        Args:
            path: ends in `.mp4`.
            fps: of the source; None for 25.
            live: whether frames are placed by the time of their capture, instead of by their number.
        """
        self._path = path
        self._fps = _writable(fps or _FALLBACK_FPS)
        self._live = live
        self._cv2: Any = None
        self._writer: Any = None
        self._staging = ExitStack()
        self._temporary = path
        self._size = (0, 0)
        self._first_at = 0.0
        self._written = 0
        self._next_look = 0.0

    def __enter__(self) -> Self:
        self._cv2 = load_opencv("Writing a video")
        self._path = Path(utf8_path(self._path, "OpenCV"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._writer is not None:
            self._finish()

    def write(self, answer: Answer, progress: Progress) -> None:
        """Append one frame, as often as its time asks for."""
        picture = answer.overlay
        if picture is None:
            return
        due_at = answer.frame.captured_at * self._fps if self._live else float(answer.frame.index)
        self._check_room()
        if self._writer is None:
            self._begin(picture.shape[1], picture.shape[0])
            self._first_at = due_at
        bgr = self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2BGR)
        if bgr.shape[1::-1] != self._size:
            # A writer drops frames of another size without a word.
            bgr = self._cv2.resize(bgr, self._size, interpolation=self._cv2.INTER_AREA)
        gap = due_at - self._first_at - self._written
        self._first_at += max(0.0, gap - _LONGEST_GAP_S * self._fps)
        while self._written <= round(due_at - self._first_at):
            self._writer.write(bgr)
            self._written += 1

    def _begin(self, width: int, height: int) -> None:
        self._temporary = self._staging.enter_context(staged(self._path, keep_earlier=True))
        self._size = (width, height)
        codec = self._cv2.VideoWriter_fourcc(*"mp4v")
        writer = self._cv2.VideoWriter(str(self._temporary), codec, self._fps, self._size)
        if not writer.isOpened():
            reason = KdedgeError(
                f"This OpenCV cannot write {self._path} ({width} × {height} at {self._fps:.3g} fps, MPEG-4). "
                "Expected an OpenCV built with FFmpeg: `pip install opencv-python-headless`."
            )
            self._staging.__exit__(type(reason), reason, None)
            raise reason
        self._writer = writer

    def _check_room(self) -> None:
        """End the film while there is room for its end."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        free_bytes = shutil.disk_usage(_existing(self._path.parent)).free
        if free_bytes >= _RESERVE_BYTES:
            return
        nearly_full = f"The disk of {self._path} is nearly full ({free_bytes / 2**20:.0f} MB are free)."
        expected = f"Expected {_RESERVE_BYTES // 2**20} MB or more. Make room, then start the run again."
        if self._writer is None:
            raise KdedgeError(f"{nearly_full} Nothing was recorded, and earlier films are as they were. {expected}")
        self._finish()
        raise KdedgeError(f"{nearly_full} The film was ended there and plays: {self._written:,} frames. {expected}")

    def _finish(self) -> None:
        """Close the film and give it its name, if it is one: OpenCV says nothing of writes that fail."""
        self._writer.release()
        self._writer = None
        found = self._playable()
        if found < self._written or not found:
            reason = KdedgeError(
                f"{self._path} could not be written: {found:,} of its {self._written:,} frames can be read back, so it "
                "was removed. Expected room on the disk, and no limit on the size of a file (`df -h`, `ulimit -f`)."
            )
            self._staging.__exit__(type(reason), reason, None)
            raise reason
        self._staging.close()

    def _playable(self) -> int:
        """How many frames the file holds, as far as its index and its last frame tell."""
        cv2 = self._cv2
        capture = cv2.VideoCapture(str(self._temporary))
        try:
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
            if count < 1:
                return 0
            capture.set(cv2.CAP_PROP_POS_FRAMES, count - 1)
            read, last = capture.read()
            return count if read and np.size(last) else 0
        finally:
            capture.release()


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(above for above in (folder, *folder.parents) if above.exists())


def _writable(fps: float) -> float:
    """The nearest rate that OpenCV can write: it takes thousandths, of which MPEG-4 holds 65,535 a second."""
    return fps if fps <= _MOST_THOUSANDTHS / 1000 else round(fps, 1)

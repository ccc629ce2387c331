"""The overlay as an MP4 file."""

import logging
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.prediction import Answer
from kdedge_runtime.sinks.fragmented_mp4 import FragmentWriter
from kdedge_runtime.stream.statistics import Progress
from kdedge_runtime.util.files import number_earlier, sync_folder, utf8_path
from kdedge_runtime.util.opencv import load_opencv
from kdedge_runtime.util.temporary_files import abandoned, mark_as_ours, scratch_folder

__all__ = ["VideoFile"]

_log = logging.getLogger(__name__)
_FALLBACK_FPS = 25.0
_FRAGMENT_S = 2.0
"""Length of a fragment: the most that a power cut or `kill -9` costs, besides data not yet on the disk."""
_RESERVE_BYTES = 16 * 2**20
"""Room that is left on the disk for everybody else."""
_LOOK_EVERY_S = 1.0
_MOST_THOUSANDTHS = 65_535
_LONGEST_GAP_S = 10.0
"""A longer time without frames, while a camera was away, is shortened to this."""


class VideoFile:
    """Writes overlays to a fragmented MP4, `film.part.mp4`, which becomes `film.mp4` at its end.

    A picture stays until the next one's time, so that the film runs at the speed of the world: a live source gives
    fewer frames than its rate says when the model is slower, and frames that are not explained are not drawn.

    Every two seconds of film are written at once, and play even if the process is killed then. The next recording under
    the same name keeps such a film as `film-1.mp4`, or the next free number; so it does with an earlier `film.mp4`.
    When the disk is nearly full the film is ended there and the run with it. A film of no frame leaves no file.
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
        self._part = path.with_name(f"{path.stem}.part{path.suffix}")
        self._fps = _writable(fps or _FALLBACK_FPS)
        self._fragment_frames = max(1, round(_FRAGMENT_S * self._fps))
        self._live = live
        self._cv2: Any = None
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._fragments: FragmentWriter | None = None
        self._segment = path
        self._writer: Any = None
        self._waiting = 0
        """Frames in the writer that are not in the film yet."""
        self._size = (0, 0)
        self._first_at = 0.0
        self._written = 0
        self._next_look = 0.0

    def __enter__(self) -> Self:
        self._cv2 = load_opencv("Writing a video")
        if self._part.exists():
            self._recover()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        try:
            if self._file is not None:
                self._finish()
        finally:
            self._stack.close()

    def write(self, answer: Answer, progress: Progress) -> None:
        """Append one frame, as often as its time asks for."""
        picture = answer.overlay
        if picture is None:
            return
        due_at = answer.frame.captured_at * self._fps if self._live else float(answer.frame.index)
        self._check_room()
        if self._file is None:
            self._begin(picture.shape[1], picture.shape[0])
            self._first_at = due_at
        bgr = self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2BGR)
        if bgr.shape[1::-1] != self._size:
            # A writer drops frames of another size without a word.
            bgr = self._cv2.resize(bgr, self._size, interpolation=self._cv2.INTER_AREA)
        gap = due_at - self._first_at - self._written
        self._first_at += max(0.0, gap - _LONGEST_GAP_S * self._fps)
        while self._written <= round(due_at - self._first_at):
            if self._writer is None:
                self._writer = self._encoder()
            self._writer.write(bgr)
            self._written += 1
            self._waiting += 1
            if self._waiting == self._fragment_frames:
                self._append()

    def _recover(self) -> None:
        """Keep what a killed recording has left."""
        with abandoned(self._part) as is_ours:
            if not is_ours:
                raise UsageError(
                    f"{self._part} is there, and belongs to another run or cannot be locked. Name another file: -o "
                    "OTHER.mp4; or move that one away."
                )
            if self._part.stat().st_size:
                kept = number_earlier(self._part, self._path)
                _log.warning("A recording that was ended by force is kept: %s", kept)
            self._part.unlink()

    def _begin(self, width: int, height: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._size = (width, height)
        self._segment = self._stack.enter_context(scratch_folder("film")) / "segment.mp4"
        self._writer = self._encoder()
        self._file = self._stack.enter_context(self._part.open("xb", buffering=0))
        mark_as_ours(self._file.fileno())
        self._fragments = FragmentWriter(self._file)

    def _encoder(self) -> Any:
        width, height = self._size
        codec = self._cv2.VideoWriter_fourcc(*"mp4v")
        writer = self._cv2.VideoWriter(utf8_path(self._segment, "OpenCV"), codec, self._fps, self._size)
        if not writer.isOpened():
            raise KdedgeError(
                f"This OpenCV cannot write {self._path} ({width} × {height} at {self._fps:.3g} fps, MPEG-4). "
                "Expected an OpenCV built with FFmpeg: `pip install opencv-python-headless`."
            )
        return writer

    def _append(self) -> None:
        """Move what is encoded into the film. OpenCV does not report writes that fail, so its frames are counted."""
        assert self._fragments is not None
        self._writer.release()
        self._writer, wanted, self._waiting = None, self._waiting, 0
        try:
            found = self._fragments.append(self._segment.read_bytes())
            if found != wanted:
                raise ValueError(f"{found} of its {wanted} frames were encoded")
        except (OSError, ValueError) as error:
            self._written -= wanted
            self._finish()
            reason = error.strerror or error if isinstance(error, OSError) else error
            kept = "No frame was kept"
            if self._written:
                kept = f"The film was ended there and plays: {self._written:,} frames"
            raise KdedgeError(
                f"{self._path} could not be written any more: {reason}. {kept}. Expected room on the disk and in the "
                "temporary folder, and no limit on the size of a file (`df -h`, `ulimit -f`)."
            ) from error

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
        if self._file is None:
            raise KdedgeError(f"{nearly_full} Nothing was recorded, and earlier films are as they were. {expected}")
        self._finish()
        raise KdedgeError(f"{nearly_full} The film was ended there and plays: {self._written:,} frames. {expected}")

    def _finish(self) -> None:
        """Give the film its name, if it has a frame."""
        if self._waiting:
            self._append()
        assert self._file is not None
        os.fsync(self._file.fileno())
        is_empty = not self._file.tell()
        self._file = None
        self._stack.close()
        if is_empty:
            self._part.unlink()
            return
        number_earlier(self._path, self._path)
        self._part.replace(self._path)
        sync_folder(self._path.parent)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(above for above in (folder, *folder.parents) if above.exists())


def _writable(fps: float) -> float:
    """The nearest rate that OpenCV can write: it takes thousandths, of which MPEG-4 holds 65,535 a second."""
    return fps if fps <= _MOST_THOUSANDTHS / 1000 else round(fps, 1)

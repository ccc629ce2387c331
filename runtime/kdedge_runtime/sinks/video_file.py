"""Overlays as an MP4 file."""

import logging
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sinks.fragmented_mp4 import FragmentWriter
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.files import number_earlier, sync_folder, utf8_path
from kdedge_runtime.util.opencv import load_opencv
from kdedge_runtime.util.temporary_files import find_abandoned, mark_owned, scratch_folder

__all__ = ["VideoFile"]

_log = logging.getLogger(__name__)
_FALLBACK_FPS = 25.0
_FRAGMENT_S = 2.0
"""Length of a fragment in seconds: the most that is lost on a power failure or `kill -9`, besides unflushed data."""
_RESERVE_BYTES = 16 * 2**20
"""Free disk space kept in reserve, in bytes."""
_CHECK_EVERY_S = 1.0
_MAX_THOUSANDTHS = 65_535
_MAX_GAP_S = 10.0
"""Longest gap in seconds that is kept while a camera delivers no frames. Longer gaps are shortened."""


class VideoFile:
    """Writes overlays to a fragmented MP4, `film.part.mp4`, renamed to `film.mp4` at the end.

    Frames are repeated until the next one is due, so that the video plays in real time. Live sources yield fewer frames
    than their nominal rate if the model is slower, and frames that are not explained are not drawn.

    A fragment is written every two seconds and stays playable if the process is killed. The next recording with the
    same name keeps such a video as `film-1.mp4`, or the next free number. It does the same with an earlier `film.mp4`.
    If the disk is nearly full, the video is finished and the run ends. A video without frames leaves no file.
    """

    wants_overlay = True

    def __init__(self, path: Path, fps: float | None, *, live: bool) -> None:
        """Create a sink.

        Args:
            path: output path ending in `.mp4`.
            fps: frame rate of the source; None for 25.
            live: True places frames by capture time instead of by index.
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
        """Number of encoded frames that are not yet in the video."""
        self._size = (0, 0)
        self._latest: Any = None
        """Last drawn image, BGR."""
        self._first_at = 0.0
        self._written = 0
        self._next_check = 0.0

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

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Append one frame, repeated as often as its duration requires; without an overlay, the last image."""
        image = prediction.overlay
        if image is None and self._latest is None:
            return
        due_at = prediction.frame.captured_at * self._fps if self._live else float(prediction.frame.index)
        self._check_room()
        if image is not None:
            if self._file is None:
                self._begin(image.shape[1], image.shape[0])
                self._first_at = due_at
            self._latest = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR)
            if self._latest.shape[1::-1] != self._size:
                # OpenCV's writer silently drops frames of another size.
                self._latest = self._cv2.resize(self._latest, self._size, interpolation=self._cv2.INTER_AREA)
        gap = due_at - self._first_at - self._written
        self._first_at += max(0.0, gap - _MAX_GAP_S * self._fps)
        while self._written <= round(due_at - self._first_at):
            if self._writer is None:
                self._writer = self._encoder()
            self._writer.write(self._latest)
            self._written += 1
            self._waiting += 1
            if self._waiting == self._fragment_frames:
                self._append()

    def _recover(self) -> None:
        """Keep the recording left by a killed process."""
        with find_abandoned(self._part) as is_ours:
            if not is_ours:
                raise UsageError(
                    f"{self._part} exists, and belongs to another run or cannot be locked. Use another file (-o "
                    "OTHER.mp4), or move it away."
                )
            if self._part.stat().st_size:
                kept = number_earlier(self._part, self._path)
                _log.warning("An interrupted recording was kept: %s", kept)
            self._part.unlink()

    def _begin(self, width: int, height: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._size = (width, height)
        self._segment = self._stack.enter_context(scratch_folder("film")) / "segment.mp4"
        self._writer = self._encoder()
        self._file = self._stack.enter_context(self._part.open("xb", buffering=0))
        mark_owned(self._file.fileno())
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
        """Move the encoded frames into the video. OpenCV does not report failed writes, so the frames are counted."""
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
                kept = f"The video was finished there and is playable: {counted(self._written, 'frame')}"
            raise KdedgeError(
                f"{self._path} cannot be written: {reason}. {kept}. Expected free space on the disk and in the "
                "temporary folder, and no limit on file size (`df -h`, `ulimit -f`)."
            ) from error

    def _check_room(self) -> None:
        """Finish the video while there is enough space to do so."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_EVERY_S
        free_bytes = shutil.disk_usage(_existing(self._path.parent)).free
        if free_bytes >= _RESERVE_BYTES:
            return
        nearly_full = f"The disk of {self._path} is nearly full ({free_bytes / 2**20:.0f} MB free)."
        expected = f"Expected at least {_RESERVE_BYTES // 2**20} MB. Free some space, then start the run again."
        if self._file is None:
            raise KdedgeError(f"{nearly_full} Nothing was recorded, and earlier videos are unchanged. {expected}")
        self._finish()
        raise KdedgeError(
            f"{nearly_full} The video was finished there and is playable: {counted(self._written, 'frame')}. {expected}"
        )

    def _finish(self) -> None:
        """Rename the video to its final name, or remove it if it has no frames."""
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
    """Return the folder, or its nearest existing parent."""
    return next(above for above in (folder, *folder.parents) if above.exists())


def _writable(fps: float) -> float:
    """Return the nearest frame rate in thousandths that MPEG-4 allows: at most 65,535 ticks per second."""
    return fps if fps <= _MAX_THOUSANDTHS / 1000 else round(fps, 1)

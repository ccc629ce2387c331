"""The overlay as an MP4 file."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdedge_runtime.answer import Answer
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.files import staged
from kdedge_runtime.opencv import load_opencv
from kdedge_runtime.progress import Progress

__all__ = ["VideoFile"]

_FALLBACK_FPS = 25.0


class VideoFile:
    """Writes overlays to an MP4 that appears under its name once it is whole.

    A recorded source gives one frame a frame. A live one gives fewer frames than its rate says when the model is
    slower: each is then repeated until the next, so that the film runs at the speed of the world.
    """

    wants_overlay = True

    def __init__(self, path: Path, fps: float | None, *, live: bool) -> None:
        """Prepare to write.

        Args:
            path: ends in `.mp4`.
            fps: of the source; None for 25.
            live: whether frames are placed by the time of their capture.
        """
        self._path = path
        self._fps = fps or _FALLBACK_FPS
        self._live = live
        self._stack = ExitStack()
        self._cv2: Any = None
        self._writer: Any = None
        self._temporary = path
        self._size = (0, 0)
        self._first_captured_at = 0.0
        self._written = 0

    def __enter__(self) -> Self:
        self._cv2 = load_opencv("Writing a video")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        self._stack.__exit__(kind, error, trace)

    def write(self, answer: Answer, progress: Progress) -> None:
        """Append one frame, as often as its time asks for."""
        picture = answer.overlay
        if picture is None:
            return
        if self._writer is None:
            self._begin(picture.shape[1], picture.shape[0])
            self._first_captured_at = answer.frame.captured_at
        bgr = self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2BGR)
        if bgr.shape[1::-1] != self._size:
            # A writer drops frames of another size without a word.
            bgr = self._cv2.resize(bgr, self._size, interpolation=self._cv2.INTER_AREA)
        for _ in range(self._repeats(answer.frame.captured_at)):
            self._writer.write(bgr)
            self._written += 1

    def _begin(self, width: int, height: int) -> None:
        self._temporary = self._stack.enter_context(staged(self._path))
        self._size = (width, height)
        codec = self._cv2.VideoWriter_fourcc(*"mp4v")
        self._writer = self._cv2.VideoWriter(str(self._temporary), codec, self._fps, self._size)
        if not self._writer.isOpened():
            raise KdedgeError(
                f"This OpenCV cannot write {self._path} ({width} × {height} at {self._fps:.3g} fps, MPEG-4). "
                "Expected an OpenCV built with FFmpeg: `pip install opencv-python-headless`."
            )

    def _repeats(self, captured_at: float) -> int:
        if not self._live:
            return 1
        due = round((captured_at - self._first_captured_at) * self._fps) + 1
        return max(0, due - self._written)

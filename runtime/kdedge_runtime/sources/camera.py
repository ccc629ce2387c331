"""Cameras and network streams, through OpenCV."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.opencv import load_opencv
from kdedge_runtime.sources.frame import Frame

__all__ = ["CSI_ADVICE", "CameraSource"]

CSI_ADVICE = (
    "A ribbon-cable (CSI) camera does not open by number on current Raspberry Pi OS: run "
    "`rpicam-vid -t 0 --inline --listen -o tcp://127.0.0.1:8888` and use `--source tcp://127.0.0.1:8888`."
)
_PATIENCE_MS = 10_000


class CameraSource:
    """A camera by its number or device path, or a stream by its URL: whatever it shows, from now on.

    It has no end: a camera that stops giving frames is an error, and never a black frame.
    """

    live = True
    expected: int | None = None
    dropped = 0
    unreadable = 0

    def __init__(self, address: int | str) -> None:
        is_url = isinstance(address, str) and "://" in address
        self.name = _without_password(str(address)) if is_url else f"camera {address}"
        self.fps: float | None = None
        self._address = address
        self._is_url = is_url
        self._cv2: Any = None
        self._capture: Any = None

    def __enter__(self) -> Self:
        self._cv2 = cv2 = load_opencv("Reading a stream" if self._is_url else "Reading a camera")
        if self._is_url:
            # Without these a server that stays silent would hold the run for ever.
            patience = [
                *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _PATIENCE_MS),
                *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, _PATIENCE_MS),
            ]
            self._capture = cv2.VideoCapture(self._address, cv2.CAP_FFMPEG, patience)
        else:
            self._capture = cv2.VideoCapture(self._address)
        if not self._capture.isOpened():
            raise SourceError(f"{self._sentence_name()} did not open. {self._advice()}")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(fps) if 0 < fps < 1000 else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __iter__(self) -> Iterator[Frame]:
        index, kind = 0, "stream" if self._is_url else "camera"
        while True:
            read, bgr = self._capture.read()
            captured_at = time.monotonic()
            if not read:
                state = f"stopped giving frames after {index:,}" if index else "opened but gives no frames"
                raise SourceError(f"{self._sentence_name()} {state}. {self._advice()}")
            rgb = self._cv2.cvtColor(bgr, self._cv2.COLOR_BGR2RGB)
            yield Frame(index, rgb, captured_at, f"{kind}-{index:06d}")
            index += 1

    def _sentence_name(self) -> str:
        return self.name[:1].upper() + self.name[1:] if not self._is_url else f"The stream {self.name}"

    def _advice(self) -> str:
        if self._is_url:
            return "Check the address and that the sender runs, for example with `ffplay URL`."
        return f"Expected a connected camera that no other program uses (`v4l2-ctl --list-devices`). {CSI_ADVICE}"


def _without_password(url: str) -> str:
    """The URL as it may be shown and logged."""
    try:
        user, at, _ = urlsplit(url).netloc.rpartition("@")
    except ValueError as error:
        raise UsageError(
            f"--source is no address of a stream ({error}). Expected one like rtsp://HOST/PATH."
        ) from error
    return url.replace(f"{user}{at}", "***@", 1) if at else url

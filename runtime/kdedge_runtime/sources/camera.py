"""Cameras and network streams through OpenCV."""

import time
from typing import Any

from kdedge_runtime.errors import SourceError
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.opencv import load_opencv

__all__ = ["OpenCVConnection", "open_camera", "open_stream", "without_password"]

_TIMEOUT_MS = 10_000


class OpenCVConnection:
    """Open `cv2.VideoCapture`."""

    def __init__(self, cv2: Any, capture: Any) -> None:
        self._cv2 = cv2
        self._capture = capture
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(fps) if 0 < fps < 1000 else None

    def read(self) -> tuple[Pixels, float] | None:
        """Return the next frame and its capture time; None if there is none."""
        read, bgr = self._capture.read()
        captured_at = time.monotonic()
        if not read or bgr is None or not bgr.size:
            return None
        return self._cv2.cvtColor(bgr, self._cv2.COLOR_BGR2RGB), captured_at

    def close(self) -> None:
        """Release the capture."""
        self._capture.release()


def open_camera(device: str) -> OpenCVConnection:
    """Open a USB camera by number or device path.

    Raises:
        SourceError: the camera cannot be opened.
        MissingDependency: OpenCV is not installed.
    """
    cv2 = load_opencv("Reading a camera")
    capture = cv2.VideoCapture(int(device) if device.isdecimal() else device)
    if not capture.isOpened():
        raise SourceError(
            f"Camera {device} did not open. Expected a connected camera that no other program uses (`v4l2-ctl "
            "--list-devices`). For a ribbon-cable (CSI) camera of a Raspberry Pi, use `--source csi:0`."
        )
    return OpenCVConnection(cv2, capture)


def open_stream(url: str) -> OpenCVConnection:
    """Open a stream by URL.

    Raises:
        SourceError: the stream does not open within ten seconds.
        MissingDependency: OpenCV is not installed.
    """
    cv2 = load_opencv("Reading a stream")
    # Without timeouts, an unresponsive server would block the run forever.
    timeout = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeout)
    if not capture.isOpened():
        raise SourceError(
            f"The stream {without_password(url)} did not open. Check the address and that the sender is running, for "
            "example with `ffplay URL`."
        )
    return OpenCVConnection(cv2, capture)


def without_password(url: str) -> str:
    """Return a URL with its credentials masked, for display and logs. Paths are unchanged."""
    if "://" not in url:
        return url
    from urllib.parse import urlsplit

    user, at, _ = urlsplit(url).netloc.rpartition("@")
    return url.replace(f"{user}{at}", "***@", 1) if at else url

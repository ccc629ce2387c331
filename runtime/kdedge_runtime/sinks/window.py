"""Overlays in a window."""

import os
import sys
import threading
from types import TracebackType
from typing import Any, Self

from kdedge_runtime.errors import MissingDependency, UsageError
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.opencv import load_opencv

__all__ = ["Window"]

_TITLE = "kdedge (press q to quit)"
_ESCAPE = 27


class Window:
    """Shows overlays in a window. Pressing q or Escape, or closing the window, ends the run."""

    wants_overlay = True

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._cv2: Any = None

    def __enter__(self) -> Self:
        cv2 = load_opencv("A window")
        # Qt aborts the process if there is no display, so check first.
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UsageError("--show needs a display, and none is available. Use a browser instead: `--view 8080`.")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise MissingDependency(
                "--show needs OpenCV with window support, but the headless build is installed. Replace it with `pip "
                "uninstall opencv-python-headless && pip install opencv-python` (or `apt install python3-opencv`), "
                "or use a browser: `--view 8080`."
            ) from error
        self._cv2 = cv2
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._cv2.destroyAllWindows()

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Show one image and process key presses."""
        if prediction.overlay is None:
            return
        if not progress.frames > 1:
            height, width = prediction.overlay.shape[:2]
            self._cv2.resizeWindow(_TITLE, width, height)
        self._cv2.imshow(_TITLE, self._cv2.cvtColor(prediction.overlay, self._cv2.COLOR_RGB2BGR))
        key = self._cv2.waitKey(1) & 0xFF
        if key in (ord("q"), _ESCAPE) or self._cv2.getWindowProperty(_TITLE, self._cv2.WND_PROP_VISIBLE) < 1:
            self._stop.set()

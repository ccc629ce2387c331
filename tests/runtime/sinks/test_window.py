"""Window on the desktop."""

import os
import threading

import pytest

from kdedge_runtime.errors import MissingDependency, UsageError
from kdedge_runtime.sinks.window import Window


def test_window_error_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="--view 8080"):
        Window(threading.Event()).__enter__()
    if "GUI:                           NONE" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV has windows")
    monkeypatch.setitem(os.environ, "DISPLAY", ":99")
    with pytest.raises(MissingDependency, match="pip install opencv-python"):
        Window(threading.Event()).__enter__()

"""Optional OpenCV import. Cameras, videos and windows need OpenCV; images and models do not."""

import os
from typing import Any

from kdedge_runtime.util.optional_package import needs_package

__all__ = ["load_opencv"]


def load_opencv(purpose: str) -> Any:
    """Import `cv2` and silence its logging.

    Args:
        purpose: feature that needs OpenCV, used as the beginning of the error message ("Reading a video").

    Raises:
        MissingDependency: OpenCV is not installed.
    """
    # Must be set before FFmpeg is first used. Otherwise a damaged video prints tens of thousands of lines.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    with needs_package(purpose, "OpenCV", "`pip install opencv-python-headless` or `apt install python3-opencv`"):
        import cv2
    if hasattr(cv2, "setLogLevel"):
        cv2.setLogLevel(0)
    return cv2

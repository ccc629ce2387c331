"""Optional OpenCV import. Cameras, videos and windows need OpenCV; images and models do not."""

import os
from typing import Any

from kdedge_runtime.errors import MissingDependency

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
    try:
        import cv2
    except ImportError as error:
        raise MissingDependency(
            f"{purpose} needs OpenCV, which is not installed ({error}). "
            "Install it with `pip install opencv-python-headless` or `apt install python3-opencv`."
        ) from error
    if hasattr(cv2, "setLogLevel"):
        cv2.setLogLevel(0)
    return cv2

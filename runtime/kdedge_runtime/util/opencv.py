"""OpenCV, for those who have it: cameras, videos and windows need it, pictures and models do not."""

import os
from typing import Any

from kdedge_runtime.errors import MissingDependency

__all__ = ["load_opencv"]


def load_opencv(purpose: str) -> Any:
    """Import `cv2` and silence its own logging: what matters is said by our errors.

    Args:
        purpose: what needs it, to begin the error message with ("Reading a video").

    Raises:
        MissingDependency: OpenCV is not installed.
    """
    # Read when FFmpeg is first used: without it a damaged video prints tens of thousands of lines.
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

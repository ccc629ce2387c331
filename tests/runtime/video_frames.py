"""Frames of a video file, as OpenCV reads them."""

from pathlib import Path

import cv2


def frames_of(path: Path) -> list[float]:
    """Return the mean gray level of each readable frame."""
    capture = cv2.VideoCapture(str(path))
    means = []
    while (read := capture.read())[0]:
        means.append(float(read[1].mean()))
    return means

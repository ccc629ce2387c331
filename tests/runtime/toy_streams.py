"""A sink that stores everything, and a source of given images."""

import threading
import time
from collections.abc import Iterator

import numpy as np

from kdedge_runtime.errors import SourceError
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.statistics import RunProgress


class Collector:
    """Sink that stores everything."""

    def __init__(self, *, wants_overlay: bool = False, stop: threading.Event | None = None) -> None:
        self.wants_overlay = wants_overlay
        self.predictions: list[Prediction] = []
        self._stop = stop

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        assert progress.frames == len(self.predictions) + 1
        self.predictions.append(prediction)
        if self._stop is not None:
            self._stop.set()


class Frames:
    """Source of given images that may fail after the last."""

    name, live, fps, dropped, unreadable, reconnects = "test", False, 30.0, 0, 0, 0

    def __init__(self, *pictures: np.ndarray, breaks: bool = False) -> None:
        self.expected = len(pictures)
        self._images, self._breaks = pictures, breaks

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for index, picture in enumerate(self._images):
            yield Frame(index, picture, time.monotonic(), f"test-{index}")
        if self._breaks:
            raise SourceError("the cable is out")

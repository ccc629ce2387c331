"""Live view of an ongoing run whose classes are enrolled."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from view_client import ABOUT, HERE, get, post

from kdedge_runtime.enrolled_classes import EnrolledClasses
from kdedge_runtime.model import Model
from kdedge_runtime.server.live_view import ClassFile, Controls, LiveView
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import LiveSettings, StreamSettings

__all__ = ["Colors", "Site"]


class Colors:
    """Live source of two images in turn, each for a while."""

    name, live, fps, expected, dropped, unreadable, reconnects = "colors", True, 50.0, None, 0, 0, 0
    paths: tuple[Path, ...] = ()

    def __init__(self, ended: threading.Event, *images: np.ndarray) -> None:
        self.images, self.index = images, 0
        self._ended = ended

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while not self._ended.wait(0.02):
            yield Frame(number, self.images[self.index], time.monotonic(), f"color-{number}")
            number += 1


class Site:
    """View of an ongoing run with a file of enrolled classes."""

    def __init__(self, model: Model, path: Path, images: list[np.ndarray], *, crop: bool = False) -> None:
        self.model, self.path = model, path
        regions = model.metadata.input.parse_regions(["left=0,0,0.5,1.0", "right=0.5,0,1.0,1.0"]) if crop else ()
        self.controls = Controls(model, LiveSettings())
        self.view = LiveView(HERE, ABOUT, self.controls, class_file=ClassFile(path, model, self.controls))
        settings = StreamSettings(regions=regions)
        self._ended = threading.Event()
        self.source = Colors(self._ended, *images)
        self._run = threading.Thread(
            target=run, args=(model, self.source, [self.view], settings, self.controls, self._ended), daemon=True
        )

    def __enter__(self) -> "Site":
        self.view.__enter__()
        self._run.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._run.join()
        self.view.__exit__(None, None, None)

    def metrics(self, query: str = "") -> dict:
        return json.loads(get(self.view, f"/metrics.json{query}")[1])

    def until(self, **wanted: object) -> dict:
        """Wait until the latest metrics have these values."""
        deadline = time.monotonic() + 15
        while True:
            found = self.metrics()
            found["ranked"] = len(found.get("ranking", ()))
            if all(found.get(key) == value for key, value in wanted.items()):
                return found
            assert time.monotonic() < deadline, (wanted, found)
            time.sleep(0.02)

    def enroll(self, name: str, **more: object) -> tuple[int, dict]:
        """Enroll a frame that is newer than all until now."""
        response, _ = get(self.view, f"/snapshot.jpg?after={self.metrics()['serial']}")
        return post(self.view, "/enroll", {"serial": int(response.headers["X-Serial"]), "name": name} | more)

    @property
    def classes(self) -> EnrolledClasses:
        return EnrolledClasses.read(self.path, self.model)

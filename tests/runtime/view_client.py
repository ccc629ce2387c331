"""Test run and HTTP client of the live view."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import numpy as np

from kdedge_runtime.drawing.heatmap import HeatStats
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.live_view import LiveView
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.statistics import RunProgress

HERE = AccessPolicy.at(Address("127.0.0.1", 0))
ABOUT = {"model": "colour.onnx", "source": "camera 0", "runtime": "onnxruntime"}
MAP = np.array([[1.0, -2.0], [0.0, 4.0]], np.float32)


def a_prediction(index: int, shade: int = 128) -> Prediction:
    picture = np.full((48, 64, 3), shade, np.uint8)
    return Prediction(
        frame=Frame(index, picture, time.monotonic(), f"#{index}"),
        ranking=(("<b>stop</b>", 0.75), ("tree", 0.2)),
        explained="tree",
        saliency_map=MAP,
        heat=HeatStats(0.5, 0.25, 0.1, 0.5),
        task="classify",
        input=ImageInput(48, 64, (0.5,) * 3, (0.5,) * 3),
        age_ms=12.0,
    )


class Run:
    """Run that predicts a hundred frames per second by default and draws on request."""

    def __init__(
        self,
        view: LiveView,
        progress: RunProgress,
        predict: Callable[[int], Prediction] = a_prediction,
        every_s: float = 0.01,
    ) -> None:
        self.view, self.progress, self.predict, self.every_s = view, progress, predict, every_s
        self.drawn = self.written = 0
        self.slowest_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._predictions)

    def __enter__(self) -> "Run":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _predictions(self) -> None:
        while not self._ended.wait(self.every_s):
            prediction = self.predict(self.written)
            if self.view.wants_overlay:
                prediction = replace(prediction, overlay=prediction.image)
                self.drawn += 1
            self.progress.count(prediction)
            started = time.monotonic()
            self.view.write(prediction, self.progress)
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            self.written += 1


def authority(view: LiveView) -> str:
    return view.url.removeprefix("http://").partition("/")[0]


def send(
    view: LiveView, method: str, path: str, body: str | bytes | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    with closing(http.client.HTTPConnection(authority(view), timeout=15)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response, response.read()


def get(view: LiveView, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    return send(view, "GET", path, **headers)


def post(view: LiveView, path: str, value: object, **headers: str) -> tuple[int, dict]:
    headers = {"Content_Type": "application/json"} | headers
    response, body = send(view, "POST", path, json.dumps(value), **headers)
    kind = response.headers["Content-Type"]
    return response.status, json.loads(body) if kind == "application/json" else {"text": body.decode()}


def shown_now(view: LiveView) -> int:
    """Fetch the next image and return its serial number."""
    response, _ = get(view, "/snapshot.jpg")
    assert response.status == 200
    return int(response.headers["X-Serial"])

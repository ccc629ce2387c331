"""The view, through real requests to a real server."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge_runtime.answer import Answer
from kdedge_runtime.errors import UsageError
from kdedge_runtime.heat import HeatStats
from kdedge_runtime.progress import Progress
from kdedge_runtime.sources.frame import Frame
from kdedge_runtime.sources.picture import PictureSource
from kdedge_runtime.view import Address, LiveView
from kdedge_runtime.view.board import Board

HERE = Address("127.0.0.1", 0)
ABOUT = {"model": "colour.onnx", "source": "camera 0", "runtime": "onnxruntime"}


def _answer(index: int, shade: int = 128) -> Answer:
    picture = np.full((48, 64, 3), shade, np.uint8)
    return Answer(
        frame=Frame(index, picture, time.monotonic(), f"#{index}"),
        ranking=(("<b>stop</b>", 0.75), ("tree", 0.2)),
        explained="tree",
        saliency_map=None,
        heat=HeatStats(0.5, 0.25, 0.1, 0.5),
        age_ms=12.0,
    )


class Run:
    """A run that answers a hundred frames a second while the view is open, and draws when asked to."""

    def __init__(self, view: LiveView, progress: Progress) -> None:
        self.view, self.progress = view, progress
        self.drawn = self.written = 0
        self.slowest_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._answers)

    def __enter__(self) -> "Run":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _answers(self) -> None:
        while not self._ended.wait(0.01):
            answer = _answer(self.written)
            if self.view.wants_overlay:
                answer = replace(answer, overlay=answer.frame.rgb)
                self.drawn += 1
            self.progress.count(answer)
            started = time.monotonic()
            self.view.write(answer, self.progress)
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            self.written += 1


@pytest.fixture
def progress(tmp_path: Path) -> Progress:
    return Progress(PictureSource(tmp_path))


@pytest.fixture
def view() -> Iterator[LiveView]:
    with LiveView(HERE, ABOUT) as opened:
        yield opened


def _get(view: LiveView, path: str, host: str | None = None) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(view.url.removeprefix("http://").rstrip("/"), timeout=15)
    connection.request("GET", path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    return response, response.read()


def test_the_page_is_one_file_that_loads_nothing_from_elsewhere(view: LiveView) -> None:
    response, body = _get(view, "/")
    page = body.decode()
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "//" not in page.replace("// ", ""), "an outside address"
    assert "innerHTML" not in page, "labels are data, not markup"


def test_metrics_hold_what_the_page_shows(view: LiveView, progress: Progress) -> None:
    assert json.loads(_get(view, "/metrics.json")[1]) == {"about": ABOUT, "watchers": 0, "frames": 0}
    with progress.timer.measure("inference"):
        pass
    answer = _answer(6)
    progress.count(answer)
    view.write(answer, progress)
    response, body = _get(view, "/metrics.json?now")
    metrics = json.loads(body)
    assert response.headers["Cache-Control"] == "no-store"
    assert metrics["label"] == "<b>stop</b>"
    assert metrics["ranking"] == [{"label": "<b>stop</b>", "p": 0.75}, {"label": "tree", "p": 0.2}]
    assert metrics["heat"] == {"cx": 0.5, "cy": 0.25, "area_frac": 0.1, "entropy": 0.5}
    assert set(metrics["stages"]["inference"]) == {"mean_ms", "p50_ms", "p95_ms", "p99_ms"}
    for key, value in {"frames": 1, "frame": 6, "dropped": 0, "unreadable": 0, "age_ms": 12.0, "p": 0.75}.items():
        assert metrics[key] == value, key


def test_nothing_is_drawn_while_nobody_watches(view: LiveView, progress: Progress) -> None:
    with Run(view, progress) as run:
        time.sleep(0.2)
        assert run.written > 5
        assert run.drawn == 0
        assert _get(view, "/snapshot.jpg")[0].status == 200
        drawn = run.drawn
        assert drawn > 0
        time.sleep(0.2)
        assert run.drawn <= drawn + 2, "drawing must stop when the watcher has gone"


def test_a_snapshot_is_a_picture_of_now(view: LiveView, progress: Progress) -> None:
    with Run(view, progress):
        response, body = _get(view, "/snapshot.jpg")
    assert response.headers["Content-Type"] == "image/jpeg"
    picture = np.asarray(Image.open(BytesIO(body)))
    assert picture.shape == (48, 64, 3)
    assert picture.mean() == pytest.approx(128, abs=2)


def test_the_stream_gives_new_pictures_until_the_run_ends(progress: Progress) -> None:
    with LiveView(HERE, ABOUT) as view, Run(view, progress):
        connection = http.client.HTTPConnection(view.url.removeprefix("http://").rstrip("/"), timeout=15)
        connection.request("GET", "/stream.mjpg")
        response = connection.getresponse()
        kind, _, boundary = response.headers["Content-Type"].partition("; boundary=")
        assert kind == "multipart/x-mixed-replace"
        for _ in range(5):
            assert response.readline() == f"--{boundary}\r\n".encode()
            assert response.readline() == b"Content-Type: image/jpeg\r\n"
            length = int(response.readline().removeprefix(b"Content-Length: "))
            assert response.readline() == b"\r\n"
            assert Image.open(BytesIO(response.read(length))).size == (64, 48)
            assert response.readline() == b"\r\n"
    started = time.monotonic()
    response.read()
    assert time.monotonic() - started < 2, "the end of the run ends the stream"
    connection.close()


def test_a_browser_that_does_not_read_does_not_hold_up_the_run(view: LiveView, progress: Progress) -> None:
    host, port = view.url.removeprefix("http://").rstrip("/").split(":")
    with Run(view, progress) as run, socket.create_connection((host, int(port))) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        stuck.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1.0)
        assert run.written > 40
        assert run.slowest_s < 0.2


def test_only_so_many_may_watch(view: LiveView, progress: Progress) -> None:
    host, port = view.url.removeprefix("http://").rstrip("/").split(":")
    with Run(view, progress):
        open_streams = []
        for _ in range(8):
            stream = socket.create_connection((host, int(port)), timeout=5)
            stream.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in stream.recv(64)
            open_streams.append(stream)
        assert _get(view, "/stream.mjpg")[0].status == 503
        for stream in open_streams:
            stream.close()


def test_health_follows_the_answers() -> None:
    now = [0.0]
    board = Board({}, clock=lambda: now[0])
    assert board.health() == (True, 0.0)
    now[0] = 60.0
    assert board.health() == (False, 60.0)


def test_health_is_served(view: LiveView) -> None:
    response, body = _get(view, "/health")
    assert (response.status, json.loads(body)["status"]) == (200, "ok")


def test_other_paths_are_not_found(view: LiveView) -> None:
    for path in ("/nothing", "/../page.html", "//etc/passwd", "/stream.mjpg/x"):
        assert _get(view, path)[0].status == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.net", 403),
        ("[::1", 403),
    ],
)
def test_names_that_others_point_here_are_refused(view: LiveView, host: str, status: int) -> None:
    assert _get(view, "/metrics.json", host)[0].status == status


def test_a_view_for_the_network_answers_to_any_name() -> None:
    assert Address("0.0.0.0", 8080).admits("raspberrypi.local:8080")
    assert not Address("127.0.0.1", 8080).admits(None)


def test_a_port_in_use_is_a_usage_error(view: LiveView) -> None:
    port = int(view.url.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port}.*in use.*--view {port + 1}"):
        LiveView(Address("127.0.0.1", port), ABOUT).__enter__()


def test_an_address_of_another_machine_is_a_usage_error_that_does_not_blame_the_port() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1:8080.*Expected an address of this machine"):
        LiveView(Address("192.0.2.1", 8080), ABOUT).__enter__()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8080", Address("127.0.0.1", 8080)),
        (":8080", Address("127.0.0.1", 8080)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("[::1]:8080", Address("::1", 8080)),
        ("raspberrypi.local:1", Address("raspberrypi.local", 1)),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "host:", "host", "1:2:x", "70000", "-1", "٣"])
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        Address.parse(text)

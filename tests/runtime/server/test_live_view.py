"""Live view over HTTP: content, and no blocking of the run."""

import http.client
import json
import re
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from view_client import ABOUT, HERE, Run, a_prediction, authority, get, post, shown_now

from kdedge_runtime.errors import UsageError
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.live_view import Controls, LiveView
from kdedge_runtime.server.live_view.history import ConfidenceHistory
from kdedge_runtime.server.live_view.latest_frame import LatestFrame
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.images import encode_jpeg


def test_page_loads_only_own_resources(view: LiveView) -> None:
    response, body = get(view, "/")
    page = body.decode()
    assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["Permissions-Policy"] == "camera=(), microphone=(), geolocation=()"
    parts = {"/": page}
    for path in [*re.findall(r'(?:src|href)="(/[^"]+)"', page), "/box.js", "/history.js", "/answer.js", "/chooser.js"]:
        response, body = get(view, path)
        assert response.status == 200, path
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        parts[path] = body.decode()
    for path, text in parts.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), f"{path} names an outside address"
        assert "innerHTML" not in text, "labels are data, not markup"
        assert "style=" not in text, "the policy forbids inline styles"


def test_metrics_contain_page_data(view: LiveView, progress: RunProgress) -> None:
    before = json.loads(get(view, "/metrics.json")[1])
    assert (before["about"], before["viewers"], before["frames"], before["history"]) == (ABOUT, 0, 0, [])
    assert before["controls"] == {"class": None, "method": "cam", "opacity": 0.6}
    with progress.timer.measure("inference"):
        pass
    prediction = replace(a_prediction(6), ranking=(("<b>stop</b>", 0.75), ("tree", 0.0625)))
    progress.count(prediction)
    view.write(prediction, progress)
    response, body = get(view, "/metrics.json?now")
    metrics = json.loads(body)
    assert response.headers["Cache-Control"] == "no-store"
    assert metrics["label"] == "<b>stop</b>"
    assert metrics["ranking"] == [
        {"label": "<b>stop</b>", "p": 0.75, "text": "75%", "share": 0.75},
        {"label": "tree", "p": 0.0625, "text": "6.2%", "share": 0.0625},
    ]
    assert (metrics["score_name"], metrics["can_enroll"], metrics["revision"]) == ("probability", False, 0)
    assert metrics["heat"] == {"cx": 0.5, "cy": 0.25, "area": 0.1, "entropy": 0.5}
    assert set(metrics["stages"]["inference"]) == {"mean_ms", "p50_ms", "p95_ms", "p99_ms"}
    assert [point[1:] for point in metrics["history"]] == [["<b>stop</b>", 0.75]]
    for key, value in {"frames": 1, "frame": 6, "dropped": 0, "unreadable": 0, "age_ms": 12.0, "p": 0.75}.items():
        assert metrics[key] == value, key


def test_history_keeps_latest_per_half_second_for_a_minute() -> None:
    history = ConfidenceHistory()
    for tenth in range(1000):
        history.add(tenth / 10, f"label {tenth}", tenth / 1000)
    points = history.until(100.0)
    assert len(points) == 120
    assert points[-1] == (pytest.approx(0.1), "label 999", 0.999)
    assert points[0][0] <= 60
    assert all(before[0] > after[0] for before, after in pairwise(points))
    assert history.until(200.0) == []


def test_no_drawing_without_viewers(view: LiveView, progress: RunProgress) -> None:
    with Run(view, progress) as run:
        time.sleep(0.2)
        assert run.written > 5
        assert run.drawn == 0
        shown_now(view)
        drawn = run.drawn
        assert drawn > 0
        time.sleep(0.2)
        assert run.drawn <= drawn + 2, "drawing stops when the viewer disconnects"


def test_polling_client_counts_as_watching(view: LiveView, progress: RunProgress) -> None:
    with Run(view, progress) as run:
        serial = shown_now(view)
        assert get(view, f"/snapshot.jpg?after={serial}")[0].status == 200
        drawn = run.drawn
        time.sleep(0.5)
        assert run.drawn - drawn >= 3
        time.sleep(1.2)
        drawn = run.drawn
        time.sleep(0.2)
        assert run.drawn == drawn, "the viewer is gone"


def test_snapshot_is_current(view: LiveView, progress: RunProgress) -> None:
    with Run(view, progress):
        response, body = get(view, "/snapshot.jpg")
    assert response.headers["Content-Type"] == "image/jpeg"
    picture = np.asarray(Image.open(BytesIO(body)))
    assert picture.shape == (48, 64, 3)
    assert picture.mean() == pytest.approx(128, abs=2)


def test_slowly_explained_image_is_shown(view: LiveView, progress: RunProgress) -> None:
    slow = a_prediction(0)
    frame = replace(slow.frame, captured_at=time.monotonic() - 5)
    slow = replace(slow, frame=frame, overlay=slow.frame.sample)
    progress.count(slow)
    view.write(slow, progress)
    assert shown_now(view) == 1


def test_snapshots_are_increasing(view: LiveView, progress: RunProgress) -> None:
    with Run(view, progress):
        serials = [shown_now(view)]
        for _ in range(5):
            serials.append(int(get(view, f"/snapshot.jpg?after={serials[-1]}")[0].headers["X-Serial"]))
        # A page that watched a longer earlier run.
        assert serials[-1] <= int(get(view, "/snapshot.jpg?after=1000000")[0].headers["X-Serial"]) < 1_000_000
    assert serials == sorted(set(serials))
    for nonsense in ("x", "-1", "1" * 20):
        assert get(view, f"/snapshot.jpg?after={nonsense}")[0].status == 400


def test_stream_sends_images_until_the_run_ends(progress: RunProgress, controls: Controls) -> None:
    with LiveView(HERE, ABOUT, controls) as view, Run(view, progress):
        connection = http.client.HTTPConnection(authority(view), timeout=15)
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


def test_stalled_client_does_not_block_the_run(view: LiveView, progress: RunProgress) -> None:
    host, port = authority(view).split(":")
    with Run(view, progress) as run, socket.create_connection((host, int(port))) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        stuck.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1.0)
        assert run.written > 40
        assert run.slowest_s < 0.2


def test_number_of_viewers_is_limited(view: LiveView, progress: RunProgress) -> None:
    host, port = authority(view).split(":")
    with Run(view, progress):
        open_streams = []
        for _ in range(64):
            stream = socket.create_connection((host, int(port)), timeout=5)
            stream.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" in stream.recv(64)
            open_streams.append(stream)
        assert get(view, "/stream.mjpg")[0].status == 503
        for stream in open_streams:
            stream.close()


def test_images_are_encoded_once_for_all_viewers(
    view: LiveView, progress: RunProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []

    def counted(picture: np.ndarray, quality: int) -> bytes:
        encoded.append(quality)
        return encode_jpeg(picture, quality)

    monkeypatch.setattr("kdedge_runtime.server.live_view.latest_frame.encode_jpeg", counted)
    host, port = authority(view).split(":")
    with Run(view, progress) as run, ExitStack() as stack:
        viewers = []
        for _ in range(50):
            viewer = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            viewer.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            viewers.append(viewer)
        for viewer in viewers:
            seen = b""
            while seen.count(b"Content-Type: image/jpeg") < 3:
                seen += viewer.recv(65536)
        assert run.slowest_s < 0.2
        assert len(encoded) <= run.drawn + 1
        assert sum(thread.name == "kdedge-stream" for thread in threading.enumerate()) == 1


def test_new_viewer_of_idle_source_gets_last_image(view: LiveView, progress: RunProgress) -> None:
    host, port = authority(view).split(":")
    request = b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def first_picture(viewer: socket.socket) -> bytes:
        viewer.sendall(request)
        seen = b""
        while not seen.endswith(b"--kdedge-frame\r\n") or b"image/jpeg" not in seen:
            seen += viewer.recv(65536)
        return seen.partition(b"\r\n\r\n--")[2]

    with socket.create_connection((host, int(port)), timeout=5) as early:
        with Run(view, progress):
            first_picture(early)
        time.sleep(0.2)
        with socket.create_connection((host, int(port)), timeout=5) as late:
            late.settimeout(3)
            assert b"\xff\xd8" in first_picture(late)


def test_encoding_failure_ends_only_the_stream(
    view: LiveView, progress: RunProgress, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def out_of_memory(picture: np.ndarray, quality: int) -> bytes:
        monkeypatch.setattr("kdedge_runtime.server.live_view.latest_frame.encode_jpeg", encode_jpeg)
        raise MemoryError

    monkeypatch.setattr("kdedge_runtime.server.live_view.latest_frame.encode_jpeg", out_of_memory)
    host, port = authority(view).split(":")
    ends = []
    with Run(view, progress):
        for _ in range(2):
            with socket.create_connection((host, int(port)), timeout=5) as viewer:
                viewer.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
                seen = b""
                while b"Content-Type: image/jpeg" not in seen and (received := viewer.recv(65536)):
                    seen += received
                ends.append(seen)
    assert b"Content-Type: image/jpeg" not in ends[0], "closed by the server"
    assert b"Content-Type: image/jpeg" in ends[1]
    assert any("The image stream has ended" in message for message in caplog.messages)


def test_image_rate_for_viewers_is_limited(view: LiveView, progress: RunProgress) -> None:
    host, port = authority(view).split(":")
    with Run(view, progress) as run, socket.create_connection((host, int(port)), timeout=5) as viewer:
        viewer.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        viewer.recv(65536)
        drawn, started = run.drawn, time.monotonic()
        time.sleep(1.0)
        assert 2 <= run.drawn - drawn <= 16 * (time.monotonic() - started)


def test_image_rate_depends_on_sending_cost() -> None:
    now = [0.0]
    board = LatestFrame(clock=lambda: now[0])
    drawn = replace(a_prediction(0), overlay=a_prediction(0).frame.sample)
    with board.watching():
        assert board.is_due
        board.note_cost(0.02)
        board.publish(drawn, None)  # type: ignore[arg-type]
        for now[0], due in ((0.1, False), (0.9, False), (1.1, True)):
            assert board.is_due == due
    assert not board.is_due, "no viewers"


def test_posted_samples_are_kept_without_a_viewer() -> None:
    now = [0.0]
    drawn = replace(a_prediction(0), overlay=a_prediction(0).frame.sample)
    draw = lambda prediction: prediction.frame.sample  # noqa: E731
    boards = {"camera": LatestFrame(lambda: now[0]), "posted": LatestFrame(lambda: now[0], draw)}
    for board in boards.values():
        board.publish(drawn, None)  # type: ignore[arg-type]
    now[0] = 60.0
    found = {kind: board.next_image(0, 0.01) is not None for kind, board in boards.items()}
    assert found == {"camera": False, "posted": True}
    assert not any(board.is_due for board in boards.values()), "the run draws none of them"


def test_newest_posted_sample_is_shown_if_none_follows() -> None:
    board = LatestFrame(draw=lambda prediction: prediction.frame.sample)
    plain = replace(a_prediction(0), overlay=None)
    board.publish(plain, None)  # type: ignore[arg-type]
    first = board.next_image(0, 1.0)
    for _ in range(3):  # within the minimum interval between images
        board.publish(plain, None)  # type: ignore[arg-type]
    newest = board.next_image(1, 1.0)
    assert first is not None and newest is not None and (first.serial, newest.serial) == (1, 4)
    assert board.next_image(4, 0.05) is None


def test_health_follows_predictions() -> None:
    now = [0.0]
    board = LatestFrame(clock=lambda: now[0])
    assert board.health() == (True, 0.0)
    now[0] = 60.0
    assert board.health() == (False, 60.0)


def test_health_is_served(view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
    response, body = get(view, "/health")
    assert (response.status, json.loads(body)["status"]) == (200, "ok")
    monkeypatch.setattr("kdedge_runtime.server.live_view.latest_frame.FRESH_S", 0.0)
    response, body = get(view, "/health")
    assert (response.status, json.loads(body)["status"]) == (503, "stalled")


def test_internal_errors_are_logged_but_disconnects_are_not(
    view: LiveView, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for fault, is_logged in ((BrokenPipeError("gone"), False), (ValueError("a fault"), True)):

        def fail(*_: object, fault: Exception = fault) -> None:
            raise fault

        monkeypatch.setattr("kdedge_runtime.server.live_view.view_server._Site.metrics", fail)
        with pytest.raises(http.client.RemoteDisconnected):
            get(view, "/metrics.json")
        assert ("A request failed" in caplog.text and "a fault" in caplog.text) == is_logged


def test_other_paths_are_not_found(view: LiveView) -> None:
    for path in ("/nothing", "/../page.html", "//etc/passwd", "/stream.mjpg/x", "/%2e%2e/server.py", "/server.py"):
        response, body = get(view, path)
        assert response.status == 404 and "/metrics.json" in json.loads(body)["error"], path
    assert post(view, "/nothing", {})[0] == 404


def test_port_in_use_is_a_usage_error(view: LiveView, controls: Controls) -> None:
    port = int(authority(view).rsplit(":", 1)[1])
    with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port}.*in use.*--view {port + 1}"):
        LiveView(AccessPolicy.at(Address("127.0.0.1", port)), ABOUT, controls).__enter__()


def test_foreign_address_error_does_not_mention_the_port(controls: Controls) -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1:8080.*Expected an address of this machine"):
        LiveView(AccessPolicy.at(Address("192.0.2.1", 8080)), ABOUT, controls).__enter__()

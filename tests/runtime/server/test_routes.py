"""Methods of the paths of a server."""

import http.client
import json
import re
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_predictions import in_regions
from view_client import Run, a_prediction, authority, get, post, send, shown_now

from kdedge_runtime.server.live_view import LiveView
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.statistics import RunProgress

PAGE = Path(__file__).parents[3] / ".github" / "docs" / "reference" / "device-runtime.md"
READ = ("/", "/theme.css", "/health", "/metrics", "/metrics.json", "/choices.json", "/snapshot.jpg", "/stream.mjpg")
CHANGED = ("/controls", "/pause", "/feedback", "/enroll", "/predict")


def exchanged(view: LiveView, request: str) -> tuple[list[str], bytes]:
    """Send a request without a library that expects no body for HEAD; return the lines of the head, and the body."""
    host, port = authority(view).split(":")
    with socket.create_connection((host, int(port)), timeout=15) as connection:
        connection.sendall(f"{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while len(received) < 1_000_000 and (part := connection.recv(65536)):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return head.decode().split("\r\n"), body


@pytest.mark.parametrize("path", [path for path in READ if path != "/stream.mjpg"])
def test_head_is_get_without_a_body(view: LiveView, progress: RunProgress, path: str) -> None:
    with Run(view, progress):
        shown_now(view)
        (expected, body), (head, nothing) = exchanged(view, f"GET {path}"), exchanged(view, f"HEAD {path}")
    assert head[0] == expected[0] == "HTTP/1.1 200 OK"
    assert [line.partition(":")[0] for line in head] == [line.partition(":")[0] for line in expected]
    assert next(line for line in expected if "Content-Type" in line) in head
    assert body and nothing == b""


def test_head_of_the_stream_ends_and_takes_no_place(view: LiveView, progress: RunProgress) -> None:
    with Run(view, progress) as run:
        for _ in range(70):  # more than viewers are served
            head, body = exchanged(view, "HEAD /stream.mjpg")
            assert head[0] == "HTTP/1.1 200 OK" and body == b""
            assert any("multipart/x-mixed-replace" in line for line in head)
        assert run.drawn == 0, "nobody watches"


def test_connection_is_kept_after_head(view: LiveView) -> None:
    connection = http.client.HTTPConnection(authority(view), timeout=15)
    for method, is_empty in (("HEAD", True), ("GET", False), ("HEAD", True)):
        connection.request(method, "/health")
        assert (connection.getresponse().read() == b"") == is_empty
    connection.close()


def test_errors_of_head_have_no_body(view: LiveView) -> None:
    for path, status in (("/nothing", 404), ("/predict", 405), ("/frame.jpg", 400), ("/frame.jpg?serial=9", 410)):
        head, body = exchanged(view, f"HEAD {path}")
        assert (int(head[0].split()[1]), body) == (status, b"") and "Content-Type: application/json" in head, path


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_readable_paths_allow_get_and_head(view: LiveView, method: str) -> None:
    for path in READ:
        response, body = send(view, method, path, b"{}", Content_Type="application/json")
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD"), path
        assert path in json.loads(body)["error"]
    assert send(view, method, "/nothing")[0].status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_paths_allow_post(view: LiveView, method: str) -> None:
    for path in CHANGED:
        response, body = send(view, method, path)
        assert (response.status, response.headers["Allow"]) == (405, "POST"), path
        assert method == "HEAD" or "POST" in json.loads(body)["error"]


def test_body_of_a_rejected_method_is_not_parsed_as_request(view: LiveView) -> None:
    smuggled = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"PUT /controls HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(smuggled)}\r\n\r\n".encode()
    host, port = authority(view).split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head + smuggled)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 405") and answer.count(b"HTTP/1.1 ") == 1


def publish_regions(view: LiveView, progress: RunProgress, has_regions: bool = True) -> int:
    """Publish a frame with the regions door and window, or none, and return its serial number."""
    frame = np.zeros((48, 64, 3), np.uint8)
    plain = replace(a_prediction(0), frame=Frame(0, frame, time.monotonic(), "#0"), overlay=frame)
    prediction = in_regions(plain, door="open", window="shut") if has_regions else plain
    progress.count(prediction)
    view.write(prediction, progress)
    return shown_now(view)


@pytest.mark.parametrize("has_regions", [True, False], ids=["regions", "no regions"])
def test_unknown_region_is_an_error_on_every_path(view: LiveView, progress: RunProgress, has_regions: bool) -> None:
    serial = publish_regions(view, progress, has_regions)
    wanted = {"serial": serial, "region": "attic", "judgment": "correct"}
    answers = [
        *(get(view, f"{path}?serial={serial}&region=attic") for path in ("/metrics.json", "/frame.jpg")),
        *(post(view, path, wanted) for path in ("/pause", "/feedback")),
    ]
    found = {
        (each, answer["error"]) if isinstance(each, int) else (each.status, json.loads(answer)["error"])
        for each, answer in answers
    }
    ((status, message),) = found
    assert status == 400 and "attic" in message
    assert ("door or window" in message) == has_regions


def test_blank_region_is_unknown_on_every_path(view: LiveView, progress: RunProgress) -> None:
    serial = publish_regions(view, progress)
    answers = [get(view, f"{path}?serial={serial}&region=") for path in ("/metrics.json", "/frame.jpg")]
    found = {(each.status, json.loads(body)["error"]) for each, body in answers}
    status, body = post(view, "/pause", {"serial": serial, "region": ""})
    assert found == {(status, body["error"])} and status == 400 and "door or window" in body["error"]


def test_pause_for_an_unknown_region_holds_no_frame(view: LiveView, progress: RunProgress) -> None:
    serial = publish_regions(view, progress)
    assert post(view, "/pause", {"serial": serial, "region": "attic"})[0] == 400
    held = replace(a_prediction(0), frame=Frame(0, np.zeros((2000, 2000, 3), np.uint8), 0.0, ""))
    for other in range(serial + 1, serial + 4):  # displace all frames that are not on hold
        view._site.board.shown.add(other, held)
    assert get(view, f"/frame.jpg?serial={serial}")[0].status == 410


def test_missing_frame_names_the_remedies(view: LiveView) -> None:
    error = json.loads(get(view, "/frame.jpg?serial=9")[1])["error"]
    assert "press Pause" in error and "POST /pause" in error and "Expected" in error


def test_reference_lists_the_routes(view: LiveView) -> None:
    listed = re.findall(r"^\| (GET|POST) \| `([^`]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    paths = json.loads(get(view, "/nothing")[1])["error"].split("Available: ")[1].split()
    allowed = {path: send(view, "OPTIONS", path)[0].headers["Allow"].split(",")[0] for path in paths}
    parts_of_page = {path for path in paths if path.endswith((".css", ".js"))}
    assert len(listed) == len(set(listed)) > 10
    assert {(method, path) for path, method in allowed.items() if path not in parts_of_page} == set(listed)

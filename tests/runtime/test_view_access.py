"""The view, through real requests to a real server: who is let in."""

import socket
from collections.abc import Iterator

import pytest
from view_client import ABOUT, ask, authority, get, post

from kdedge_runtime.serving import Address, Door
from kdedge_runtime.view import Controls, LiveView


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.net", 403),
        ("192.168.1.2", 403),
        ("[::1", 403),
    ],
)
def test_names_that_others_point_here_are_refused(view: LiveView, host: str, status: int) -> None:
    assert get(view, "/health", Host=host)[0].status == status


def test_only_the_page_itself_may_change_anything(view: LiveView, controls: Controls) -> None:
    own = f"http://{authority(view)}"
    wanted = {"opacity": 0.1}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": own, "Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert post(view, "/controls", wanted, **headers)[0] == 403, headers
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert post(view, "/controls", wanted, Content_Type=kind)[0] == 415
    assert controls().opacity == 0.6
    assert post(view, "/controls", wanted, Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    assert post(view, "/controls", {"opacity": 0.2})[0] == 200, "a program acts for itself"


def test_what_is_too_large_or_no_object_is_refused_unread(view: LiveView) -> None:
    kind = {"Content_Type": "application/json"}
    assert ask(view, "POST", "/controls", b"{}", Content_Length="1000000", **kind)[0].status == 413
    assert ask(view, "POST", "/controls", b"{}", Content_Length="9" * 5000, **kind)[0].status == 413
    assert ask(view, "POST", "/controls", b"{}", Content_Length="-1", **kind)[0].status == 411
    assert ask(view, "POST", "/controls", b"0\r\n\r\n", Transfer_Encoding="chunked", **kind)[0].status == 411
    for body in (b"[]", b"nonsense", b"[" * 60_000, b"\xff"):
        assert ask(view, "POST", "/controls", body, **kind)[0].status == 400
    assert get(view, "/" + "x" * 70_000)[0].status == 414
    assert ask(view, "DELETE", "/")[0].status == 501


def test_what_a_question_carries_is_not_taken_for_the_next_one(view: LiveView) -> None:
    smuggled = b"GET /labels HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(smuggled)}\r\n\r\n".encode()
    host, port = authority(view).split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head + smuggled)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.fixture
def exposed(controls: Controls) -> Iterator[LiveView]:
    """A view with a token; it listens here only, so that a test opens nothing to the network."""
    with LiveView(Door(Address("127.0.0.1", 0), "t" * 24), ABOUT, controls) as opened:
        yield opened


def test_a_token_is_asked_for_and_exchanged_for_a_cookie(exposed: LiveView) -> None:
    assert exposed.url.endswith("/?token=" + "t" * 24)
    response, page = get(exposed, "/")
    assert response.status == 401
    assert b"needs its token" in page
    for path in ("/metrics.json", "/metrics", "/snapshot.jpg", "/stream.mjpg", "/labels.json", "/view.js", "/nothing"):
        assert get(exposed, path)[0].status == 401, path
        assert get(exposed, path, Authorization="Bearer " + "x" * 24)[0].status == 401
    assert post(exposed, "/controls", {"opacity": 0.1})[0] == 401
    assert get(exposed, "/health")[0].status == 200, "it tells nothing, and watchdogs have no token"

    response, _ = get(exposed, "/?token=" + "t" * 24)
    assert (response.status, response.headers["Location"]) == (303, "/")
    cookie, _, attributes = response.headers["Set-Cookie"].partition(";")
    assert "HttpOnly" in attributes
    assert "SameSite=Lax" in attributes
    assert b"/view.js" in get(exposed, "/", Cookie=cookie)[1]
    assert get(exposed, "/metrics.json", Authorization="Bearer " + "t" * 24)[0].status == 200
    assert post(exposed, "/controls", {"opacity": 0.1}, Cookie=cookie)[0] == 200
    assert post(exposed, "/controls", {"opacity": 0.1}, Cookie=cookie, Origin="http://evil.example")[0] == 403
    assert get(exposed, "/?token=wrong")[0].status == 401


def test_two_views_of_a_host_have_their_own_cookies(exposed: LiveView, controls: Controls) -> None:
    with LiveView(Door(Address("127.0.0.1", 0), "t" * 24), ABOUT, controls) as other:
        names = {
            get(view, "/?token=" + "t" * 24)[0].headers["Set-Cookie"].partition("=")[0] for view in (exposed, other)
        }
    assert len(names) == 2

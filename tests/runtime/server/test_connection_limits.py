"""Connection and memory limits of the web server."""

import http.client
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from view_client import ABOUT, HERE, Run, authority, get

from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.connection_limits import MAX_PLACES, ConnectionLimits
from kdedge_runtime.server.live_view import Controls, LiveView
from kdedge_runtime.stream.statistics import RunProgress


@pytest.fixture
def exposed(controls: Controls) -> Iterator[LiveView]:
    """Serve a view with a token on loopback."""
    with LiveView(AccessPolicy(Address("127.0.0.1", 0), "t" * 24), ABOUT, controls) as opened:
        yield opened


def connect(view: LiveView, source: str = "127.0.0.1") -> socket.socket:
    host, port = authority(view).split(":")
    return socket.create_connection((host, int(port)), timeout=5, source_address=(source, 0))


def is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(64) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def assert_cut_off(slow: socket.socket, part: bytes) -> None:
    """Send a part every 0.1 s; the server must close the connection within two seconds."""
    started = time.monotonic()
    with pytest.raises(OSError):  # closed by the server
        while time.monotonic() - started < 4:
            slow.sendall(part)
            time.sleep(0.1)
    assert time.monotonic() - started < 2


def test_slow_request_head_times_out(view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdedge_runtime.server.request_handler.TIMEOUT_S", 0.6)
    with connect(view) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        assert_cut_off(slow, b"X: y\r\n")


def test_slow_request_body_times_out(view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdedge_runtime.server.request_handler.TIMEOUT_S", 0.6)
    head = b"POST /controls HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    with connect(view) as slow:
        slow.sendall(head)
        assert_cut_off(slow, b" ")


def test_request_head_above_16_kb_is_rejected(view: LiveView) -> None:
    fits = {"X_Long": "x" * 15_000}
    assert get(view, "/health", **fits)[0].status == 200
    assert get(view, "/health", X_Long="x" * 17_000)[0].status == 431
    assert get(view, "/health", **{f"X_{number}": "x" * 1000 for number in range(20)})[0].status == 431
    assert get(view, "/" + "x" * 17_000)[0].status == 414


def test_large_request_heads_use_no_memory(exposed: LiveView) -> None:
    header = b"X: " + b"x" * 65_000 + b"\r\n"
    tracemalloc.start()
    try:
        with ExitStack() as stack:
            for _ in range(8):
                greedy = stack.enter_context(connect(exposed))
                greedy.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
                with pytest.raises(OSError):  # closed by the server
                    for _ in range(97):
                        greedy.sendall(header)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_slow_clients_do_not_block_others(exposed: LiveView, source: str) -> None:
    with ExitStack() as stack:
        for _ in range(70):
            slow = stack.enter_context(connect(exposed, source))
            slow.sendall(b"GET / HTTP/1.1\r\nHo")
        for _ in range(20):
            assert get(exposed, "/health")[0].status == 200
            assert get(exposed, "/metrics.json", Authorization="Bearer " + "t" * 24)[0].status == 200
        assert threading.active_count() < 40


def test_unauthorized_connections_per_address_are_limited_to_eight(exposed: LiveView) -> None:
    with ExitStack() as stack:
        waiting = [stack.enter_context(connect(exposed)) for _ in range(8)]
        time.sleep(0.3)
        assert all(is_open(each) for each in waiting)
        stack.enter_context(connect(exposed))
        assert eventually(lambda: not is_open(waiting[0]))
        assert all(is_open(each) for each in waiting[1:])


def test_authorized_client_keeps_its_connection(exposed: LiveView) -> None:
    admitted = http.client.HTTPConnection(authority(exposed), timeout=5)
    bearer = {"Authorization": "Bearer " + "t" * 24}
    with ExitStack() as stack:
        admitted.request("GET", "/metrics.json", headers=bearer)
        admitted.getresponse().read()
        used = admitted.sock
        for _ in range(20):
            stack.enter_context(connect(exposed))
        time.sleep(0.3)
        admitted.request("GET", "/metrics.json", headers=bearer)
        assert admitted.getresponse().status == 200
        assert admitted.sock is used, "same connection"
    admitted.close()


def test_total_connections_are_limited(controls: Controls, progress: RunProgress) -> None:
    head = b"GET /metrics.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with LiveView(HERE, ABOUT, controls) as view, Run(view, progress) as run, ExitStack() as stack:
        taken = []
        for _ in range(MAX_PLACES):
            one = stack.enter_context(connect(view))
            one.sendall(head)
            assert one.recv(100).startswith(b"HTTP/1.1 200")
            taken.append(one)
        refused = [stack.enter_context(connect(view)) for _ in range(20)]
        answers = [http.client.HTTPResponse(one) for one in refused]
        for answer in answers:
            answer.begin()
        assert all((answer.status, set(json.loads(answer.read()))) == (503, {"error"}) for answer in answers)
        before = run.written
        time.sleep(0.5)
        assert run.written - before > 20
        assert run.slowest_s < 0.2
        taken[0].close()
        time.sleep(0.2)
        assert get(view, "/health")[0].status == 200, "a slot is free again"


@pytest.fixture
def pair() -> Iterator[Callable[[], socket.socket]]:
    with ExitStack() as stack:

        def make() -> socket.socket:
            one, other = socket.socketpair()
            stack.enter_context(other)
            return stack.enter_context(one)

        yield make


def test_slots_are_reserved_for_loopback(pair: Callable[[], socket.socket]) -> None:
    places = ConnectionLimits()
    admitted = 0
    while places.take(client := pair(), f"192.0.2.{admitted}"):
        places.admit(client)
        admitted += 1
    assert admitted == MAX_PLACES - 4
    assert places.take(pair(), "127.0.0.1")
    assert places.take(pair(), "::1")
    assert not places.take(pair(), "192.0.2.250")


def test_ipv6_clients_are_counted_per_64_network(pair: Callable[[], socket.socket]) -> None:
    places = ConnectionLimits()
    clients = [pair() for _ in range(9)]
    for number, client in enumerate(clients):
        assert places.take(client, f"2001:db8::{number}:1%eth0")
    assert not is_open(clients[0])
    assert all(is_open(client) for client in clients[1:])


def test_address_with_most_waiting_clients_is_evicted(pair: Callable[[], socket.socket]) -> None:
    places = ConnectionLimits()
    greedy = [pair() for _ in range(8)]
    for client in greedy:
        places.take(client, "192.0.2.1")
    modest = [pair() for _ in range(MAX_PLACES - 4 - 8)]
    for number, client in enumerate(modest):
        places.take(client, f"198.51.100.{number}")
    assert places.take(pair(), "203.0.113.1")
    assert not is_open(greedy[0])
    assert all(is_open(client) for client in [*greedy[1:], *modest])

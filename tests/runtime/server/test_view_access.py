"""Live view over HTTP: access control."""

import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from view_client import ABOUT, authority, get, post, send

from kdedge_runtime.cli.main import main
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.live_view import Controls, LiveView


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
def test_dns_rebinding_is_rejected(view: LiveView, host: str, status: int) -> None:
    assert get(view, "/health", Host=host)[0].status == status


def test_cross_site_changes_are_rejected(view: LiveView, controls: Controls) -> None:
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
    assert post(view, "/controls", {"opacity": 0.2})[0] == 200, "programs other than browsers are allowed"


def test_oversized_or_invalid_bodies_are_rejected(view: LiveView) -> None:
    kind = {"Content_Type": "application/json"}
    assert send(view, "POST", "/controls", b"{}", Content_Length="1000000", **kind)[0].status == 413
    assert send(view, "POST", "/controls", b"{}", Content_Length="9" * 5000, **kind)[0].status == 413
    assert send(view, "POST", "/controls", b"{}", Content_Length="-1", **kind)[0].status == 411
    assert send(view, "POST", "/controls", b"0\r\n\r\n", Transfer_Encoding="chunked", **kind)[0].status == 411
    for body in (b"[]", b"nonsense", b"[" * 60_000, b"\xff"):
        assert send(view, "POST", "/controls", body, **kind)[0].status == 400
    assert get(view, "/" + "x" * 70_000)[0].status == 414


def test_errors_are_json(view: LiveView, exposed: LiveView) -> None:
    kind = {"Content_Type": "application/json"}
    rejected = [
        (400, send(view, "POST", "/controls", b"nonsense", **kind)),
        (400, get(view, "/frame.jpg?serial=x")),
        (401, get(exposed, "/metrics.json")),
        (403, send(view, "POST", "/controls", b"{}", Origin="http://evil.example", **kind)),
        (404, get(view, "/nothing")),
        (404, send(view, "DELETE", "/nothing")),
        (405, get(view, "/predict")),
        (405, send(view, "DELETE", "/")),
        (410, get(view, "/frame.jpg?serial=999")),
        (411, send(view, "POST", "/controls", b"0", Content_Length="-1", **kind)),
        (413, send(view, "POST", "/controls", b"{}", Content_Length="1000000", **kind)),
        (414, get(view, "/" + "x" * 70_000)),
        (415, send(view, "POST", "/controls", b"{}", Content_Type="text/plain")),
        (501, send(view, "BREW", "/")),
    ]
    for status, (response, body) in rejected:
        assert (response.status, response.headers["Content-Type"]) == (status, "application/json")
        assert set(json.loads(body)) == {"error"}, status


def test_body_of_get_request_is_not_parsed_as_request(view: LiveView) -> None:
    smuggled = b"GET /labels HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(smuggled)}\r\n\r\n".encode()
    host, port = authority(view).split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head + smuggled)
        prediction = b"".join(iter(lambda: connection.recv(4096), b""))
    assert prediction.count(b"HTTP/1.1 ") == 1


@pytest.fixture
def exposed(controls: Controls, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveView]:
    """Serve a view with a token on loopback only."""
    monkeypatch.setattr("kdedge_runtime.server.failed_logins.PAUSE_S", 0.0)
    with LiveView(AccessPolicy(Address("127.0.0.1", 0), "t" * 24), ABOUT, controls) as opened:
        yield opened


def test_token_is_required_and_exchanged_for_a_cookie(exposed: LiveView) -> None:
    assert exposed.url.endswith("/?token=" + "t" * 24)
    response, page = get(exposed, "/")
    assert response.status == 401
    assert b"Token required" in page
    for path in ("/metrics.json", "/metrics", "/snapshot.jpg", "/stream.mjpg", "/labels.json", "/view.js", "/nothing"):
        assert get(exposed, path)[0].status == 401, path
        assert get(exposed, path, Authorization="Bearer " + "x" * 24)[0].status == 401
    assert post(exposed, "/controls", {"opacity": 0.1})[0] == 401
    assert get(exposed, "/health")[0].status == 200, "health needs no token"

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


def test_views_on_one_host_have_separate_cookies(exposed: LiveView, controls: Controls) -> None:
    with LiveView(AccessPolicy(Address("127.0.0.1", 0), "t" * 24), ABOUT, controls) as other:
        names = {
            get(view, "/?token=" + "t" * 24)[0].headers["Set-Cookie"].partition("=")[0] for view in (exposed, other)
        }
    assert len(names) == 2


def test_cookie_expires_after_a_day(exposed: LiveView) -> None:
    cookie = get(exposed, "/?token=" + "t" * 24)[0].headers["Set-Cookie"]
    assert int(re.search(r"Max-Age=(\d+)", cookie)[1]) <= 24 * 3600  # type: ignore[index]


def test_wrong_tokens_are_delayed_and_logged(
    exposed: LiveView, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kdedge_runtime.server.failed_logins.PAUSE_S", 0.3)
    started = time.monotonic()
    assert get(exposed, "/metrics.json")[0].status == 401
    assert time.monotonic() - started < 0.3
    assert "wrong token" not in caplog.text
    for headers in ({"Authorization": "Bearer wrong"}, {"Cookie": f"kdedge-{authority(exposed).split(':')[1]}=wrong"}):
        started = time.monotonic()
        assert get(exposed, "/metrics.json", **headers)[0].status == 401
        assert time.monotonic() - started >= 0.3
    started = time.monotonic()
    assert get(exposed, "/?token=wrong")[0].status == 401
    assert time.monotonic() - started >= 0.3
    logged = [record.getMessage() for record in caplog.records if "wrong token" in record.getMessage()]
    assert [message.partition("(")[2] for message in logged] == ["1 so far)", "2 so far)"]
    assert all(message.startswith("127.0.0.1") for message in logged)


def test_environment_token_is_not_printed(controls: Controls) -> None:
    policy = AccessPolicy.at(Address("127.0.0.1", 0), "t" * 24, is_printed=False)
    with LiveView(policy, ABOUT, controls) as opened:
        assert "t" * 24 not in opened.url
        assert get(opened, "/metrics.json")[0].status == 401


@pytest.mark.parametrize("way", ["environment", "credential", "option"])
def test_only_explicit_tokens_are_logged(
    way: str, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    token = "s" * 24
    options = ["--token", token] if way == "option" else []
    if way == "environment":
        monkeypatch.setenv("KDEDGE_TOKEN", token)
    if way == "credential":
        (tmp_path / "kdedge-token").write_text(f"{token}\n")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    arguments = [str(model_path), "--source", "synthetic:", "--max-frames", "1", "--view", "127.0.0.1:0", *options]
    assert main(arguments) == 0
    assert (token in capfd.readouterr().err) == (way == "option")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_https_view_uses_secure_cookie(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shown: list[tuple[int, str, str]] = []

    def visit(self: LiveView, prediction: object, progress: object) -> None:
        if shown:
            return
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host, port = self.url.removeprefix("https://").partition("/")[0].split(":")
        connection = http.client.HTTPSConnection(host, int(port), timeout=10, context=context)
        connection.request("GET", "/?token=" + "t" * 24)
        response = connection.getresponse()
        der = connection.sock.getpeercert(binary_form=True)
        shown.append((response.status, response.headers["Set-Cookie"], hashlib.sha256(der).hexdigest().upper()))
        connection.close()

    monkeypatch.setattr(LiveView, "write", visit)
    arguments = [str(model_path), "--source", "synthetic:", "--max-frames", "2", "--view", "127.0.0.1:0", "--tls"]
    assert main([*arguments, "--token", "t" * 24]) == 0
    printed = capfd.readouterr().err
    ((status, cookie, fingerprint),) = shown
    assert status == 303
    assert "; Secure" in cookie
    assert "view: https://" in printed
    assert fingerprint in printed.replace(":", "")
    assert "unencrypted" not in printed


def test_tls_requires_view_and_valid_file(model_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(model_path), "--source", "synthetic:", "--tls"]) == 2
    assert "Add --view" in capfd.readouterr().err
    arguments = [str(model_path), "--source", "synthetic:", "--view", "127.0.0.1:0", "--tls", str(model_path)]
    assert main(arguments) == 2
    assert "--tls" in capfd.readouterr().err


def test_exposed_http_view_logs_a_warning(model_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(model_path), "--source", "synthetic:", "--max-frames", "1", "--view", "0.0.0.0:0"]) == 0
    assert "--tls" in capfd.readouterr().err

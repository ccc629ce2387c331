"""Server addresses and access rules."""

import socket
from email.message import Message

import pytest

from kdedge_runtime.errors import UsageError
from kdedge_runtime.server import AccessPolicy, Address


def _headers(**values: str) -> Message:
    message = Message()
    for name, value in values.items():
        message[name.replace("_", "-")] = value
    return message


def test_network_addresses_get_a_random_token() -> None:
    assert AccessPolicy.at(Address("127.0.0.1", 80)).token is None
    assert AccessPolicy.at(Address("localhost", 80)).token is None
    tokens = {
        AccessPolicy.at(Address(host, 80)).token
        for host in ("0.0.0.0", "::", "192.168.1.5", "pi.local")
        for _ in range(5)
    }
    assert len(tokens) == 20
    assert all(len(token) >= 24 for token in tokens)
    assert AccessPolicy.at(Address("127.0.0.1", 80), "a" * 16).token == "a" * 16


@pytest.mark.parametrize("token", ["", "short", "x" * 15, "with spaces and more", "ünïcödé-ünïcödé-", "a;b" * 8])
def test_weak_or_invalid_tokens_are_rejected(token: str) -> None:
    with pytest.raises(UsageError, match="at least 16"):
        AccessPolicy.at(Address("0.0.0.0", 80), token)


def test_exposed_server_accepts_only_ip_addresses_and_own_names() -> None:
    address = Address("0.0.0.0", 8080)
    name = socket.gethostname().lower()
    for host in ("192.168.1.7:8080", "[fe80::1]:8080", "localhost", name, f"{name.partition('.')[0]}.local:8080"):
        assert address.admits(host), host
    for host in ("evil.example", f"{name}.evil.example", "", None, "192.168.1.7.evil.example"):
        assert not address.admits(host), host
    assert Address("pi.home.lan", 80).admits("PI.home.lan:9000"), "host name given by the user"
    assert not Address("127.0.0.1", 8080).admits(None)


def test_token_is_accepted_in_url_header_or_cookie() -> None:
    policy = AccessPolicy.at(Address("0.0.0.0", 80), "t" * 20)
    assert policy.reject_unauthenticated(_headers(), "c", "t" * 20) is None
    assert policy.reject_unauthenticated(_headers(Authorization="bearer  " + "t" * 20), "c", None) is None
    for others in ("a=b", 'seen={"a":1}', "words=a b", "a[b]=1", "bare", "ü=1"):  # cookies of programs on other ports
        assert policy.reject_unauthenticated(_headers(Cookie=f"{others}; c={'t' * 20}"), "c", None) is None, others
    for headers in (
        _headers(),
        _headers(Authorization="Basic " + "t" * 20),
        _headers(Authorization="Bearer"),
        _headers(Cookie="other=" + "t" * 20),
        _headers(Cookie="c=" + "t" * 19),
        _headers(Cookie="[broken"),
        _headers(Authorization="Bearer tök€n"),
    ):
        assert policy.reject_unauthenticated(headers, "c", "").status == 401


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
def test_addresses_are_parsed(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "host:", "host", "1:2:x", "70000", "-1", "٣"])
def test_invalid_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a valid address"):
        Address.parse(text)

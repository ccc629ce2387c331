"""Broker addresses, topics and credentials."""

import ssl
from pathlib import Path

import pytest

from kdedge_runtime.errors import UsageError
from kdedge_runtime.sinks.mqtt import BrokerAddress


@pytest.mark.parametrize(
    ("url", "host", "port", "topic", "has_tls"),
    [
        ("mqtt://broker/kdedge/porch", "broker", 1883, "kdedge/porch", False),
        ("mqtt://broker:1884/porch/", "broker", 1884, "porch", False),
        ("mqtts://broker/porch", "broker", 8883, "porch", True),
        ("MQTT://broker/porch", "broker", 1883, "porch", False),
        ("mqtt:///porch", "localhost", 1883, "porch", False),
        ("mqtt://[::1]:1884/porch", "::1", 1884, "porch", False),
        ("mqtt://broker/front%20door/ü", "broker", 1883, "front door/ü", False),
    ],
)
def test_address_and_topic(url: str, host: str, port: int, topic: str, has_tls: bool) -> None:
    address = BrokerAddress.parse(url, environment={})
    assert (address.host, address.port, address.topic) == (host, port, topic)
    assert (address.tls is not None, address.username, address.password) == (has_tls, None, None)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("broker/porch", "not a broker address"),
        ("http://broker/porch", "not a broker address"),
        ("mqtt://broker:0/porch", "invalid host or port"),
        ("mqtt://broker:99999/porch", "invalid host or port"),
        ("mqtt://broker:x/porch", "invalid host or port"),
        ("mqtt://[::1/porch", "invalid host or port"),
        ("mqtt:porch", "not a broker address"),
        ("mqtt:/porch", "not a broker address"),
        ("mqtt://broker", "no valid topic"),
        ("mqtt://broker/", "no valid topic"),
        ("mqtt://broker//porch", "no valid topic"),
        ("mqtt://broker/a//b", "no valid topic"),
        ("mqtt://broker/a?b=1", "no valid topic"),
        (f"mqtt://broker/{'a' * 201}", "no valid topic"),
        ("mqtt://broker/porch/#", "wildcard"),
        ("mqtt://broker/+/porch", "wildcard"),
        ("mqtt://broker/a%2Bb", "wildcard"),
        ("mqtt://broker/a%23b", "wildcard"),
        ("mqtt://broker/a%00b", "control characters"),
        ("mqtt://broker/$SYS/porch", "leading"),
    ],
)
def test_invalid_address_is_a_usage_error(url: str, key: str) -> None:
    with pytest.raises(UsageError, match=key) as raised:
        BrokerAddress.parse(url, environment={})
    assert "mqtt://" in str(raised.value)


def test_credentials_come_from_the_environment_only(tmp_path: Path) -> None:
    environment = {"KDEDGE_MQTT_USERNAME": "cam", "KDEDGE_MQTT_PASSWORD": "secret"}
    address = BrokerAddress.parse("mqtt://broker/porch", environment=environment)
    assert (address.username, address.password) == ("cam", "secret")
    assert "secret" not in f"{address} {address!r}"
    (tmp_path / "kdedge-mqtt-password").write_text("from systemd\n")
    environment = {"KDEDGE_MQTT_USERNAME": "cam", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert BrokerAddress.parse("mqtt://broker/porch", environment=environment).password == "from systemd"
    with pytest.raises(UsageError, match="KDEDGE_MQTT_USERNAME") as raised:
        BrokerAddress.parse("mqtt://cam:secret@broker/porch", environment={})
    assert "secret" not in str(raised.value)
    with pytest.raises(UsageError, match="without KDEDGE_MQTT_USERNAME"):
        BrokerAddress.parse("mqtt://broker/porch", environment={"KDEDGE_MQTT_PASSWORD": "secret"})


@pytest.mark.parametrize(
    "url",
    [
        "ha:Secr3t@host/porch",
        "mqtt:ha:Secr3t@host/porch",
        "mqtt:///ha:Secr3t@host/porch",
        "mqtt://ha:Secr3t%40host/porch",
        "mqtt:///ha:Secr3t%40host/porch",
        "mqtt://ha:Secr3t/et@host/porch",
        "mqtt://ha:Secr3t#et@host/porch",
        "mqtt://ha:Secr3t?et@host/porch",
        "mqtt://ha:Secr3t",
        "ha:Secr3t",
    ],
)
def test_password_is_neither_repeated_nor_used_as_topic(url: str) -> None:
    with pytest.raises(UsageError, match="mqtt://") as raised:
        BrokerAddress.parse(url, environment={})
    assert "Secr3t" not in str(raised.value)


def test_certificates_are_verified(tmp_path: Path) -> None:
    address = BrokerAddress.parse("mqtts://broker/porch", environment={})
    assert (address.tls.verify_mode, address.tls.check_hostname) == (ssl.CERT_REQUIRED, True)
    with pytest.raises(UsageError, match="needs TLS"):
        BrokerAddress.parse("mqtt://broker/porch", "ca.pem", environment={})
    with pytest.raises(UsageError, match="needs TLS"):
        BrokerAddress.parse("mqtt://broker/porch", environment={"KDEDGE_MQTT_CA": "ca.pem"})
    (tmp_path / "bad.pem").write_text("no certificate")
    for file in (tmp_path / "missing.pem", tmp_path / "bad.pem"):
        with pytest.raises(UsageError, match="PEM file") as raised:
            BrokerAddress.parse("mqtts://broker/porch", str(file), environment={})
        assert str(file) in str(raised.value)

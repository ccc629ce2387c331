"""Address of an MQTT broker, the topic below which a run publishes, and credentials."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from kdedge_runtime.errors import UsageError

__all__ = ["BrokerAddress"]

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_MAX_TOPIC_LENGTH = 200
_FORM = "mqtt://[HOST[:PORT]]/TOPIC, or mqtts:// for TLS, such as mqtt://homeassistant.local/kdedge/porch"


@dataclass(frozen=True)
class BrokerAddress:
    """Broker of a run."""

    host: str
    port: int
    topic: str
    """Topic below which everything is published, without a slash at its ends."""
    tls: ssl.SSLContext | None = None
    """TLS settings; None for an unencrypted connection."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(
        cls,
        url: str,
        ca_file: str | None = None,
        environment: Mapping[str, str] = os.environ,
        *,
        option: str = "--mqtt",
    ) -> Self:
        """Parse the value of `--mqtt`, or of another option with an address.

        Args:
            url: `mqtt://[HOST[:PORT]]/TOPIC` or `mqtts://…`. Defaults: this machine, port 1883 or 8883.
            ca_file: PEM file of the authority that signed the broker's certificate; None for `$KDEDGE_MQTT_CA` or else
            the authorities of the system.
            environment: variables with `KDEDGE_MQTT_USERNAME`, `KDEDGE_MQTT_PASSWORD` and `KDEDGE_MQTT_CA`. A file
            `kdedge-mqtt-password` in `$CREDENTIALS_DIRECTORY` (systemd) also gives the password.
            option: option in the errors.

        Raises:
            UsageError: the address or topic is invalid, contains credentials, or the CA file cannot be used.
        """
        # No message repeats the value: command lines may hold a password, and messages end up in logs.
        if "@" in unquote(url):
            raise UsageError(
                f"{option} takes no user name or password, and no topic with @. Set KDEDGE_MQTT_USERNAME and "
                f"KDEDGE_MQTT_PASSWORD in the environment. Expected {_FORM}."
            )
        name, separator, _ = url.partition("://")
        scheme = name.lower()
        if scheme not in _PORTS or not separator:
            raise UsageError(f"The value of {option} is not a broker address. Expected {_FORM}.")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise UsageError(f"{option} has an invalid host or port. Expected a port from 1 to 65535: {_FORM}.")
        topic = unquote(parts.path).removeprefix("/").removesuffix("/")
        _check_topic(url, topic, option)
        username, password = environment.get("KDEDGE_MQTT_USERNAME") or None, _password(environment)
        if password is not None and username is None:
            raise UsageError("KDEDGE_MQTT_PASSWORD is set without KDEDGE_MQTT_USERNAME. Set both, or neither.")
        ca_file = ca_file or environment.get("KDEDGE_MQTT_CA") or None
        if ca_file is not None and scheme == "mqtt":
            raise UsageError(f"A CA file needs TLS. Use mqtts:// in {option}, or remove --mqtt-ca and KDEDGE_MQTT_CA.")
        tls = _tls(ca_file) if scheme == "mqtts" else None
        return cls(parts.hostname or "localhost", port or _PORTS[scheme], topic, tls, username, password)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _check_topic(url: str, topic: str, option: str) -> None:
    if "#" in url or {"#", "+"} & set(topic):
        raise UsageError(f"{option} has a wildcard in its topic. Expected a topic without # and +: {_FORM}.")
    if not topic or "" in topic.split("/") or "?" in url or len(topic.encode()) > _MAX_TOPIC_LENGTH:
        raise UsageError(
            f"{option} has no valid topic. Expected 1 to {_MAX_TOPIC_LENGTH} bytes without empty levels: {_FORM}."
        )
    if not topic.isprintable() or topic.startswith("$"):
        raise UsageError(f"{option} has a topic with control characters or a leading $. Expected {_FORM}.")


def _password(environment: Mapping[str, str]) -> str | None:
    if password := environment.get("KDEDGE_MQTT_PASSWORD"):
        return password
    if folder := environment.get("CREDENTIALS_DIRECTORY"):
        file = Path(folder) / "kdedge-mqtt-password"
        if file.is_file():
            return file.read_text(encoding="utf-8").strip()
    return None


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"The CA file {ca_file} cannot be used: {reason}. Expected a PEM file of the authority that signed the "
            "broker's certificate."
        ) from error

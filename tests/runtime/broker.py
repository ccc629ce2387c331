"""Mosquitto for tests: a real broker on a port of its own, and what it has retained."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest


def mosquitto() -> str:
    """Return the path of the broker, or skip the test."""
    pytest.importorskip("paho.mqtt", reason="needs paho-mqtt")
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("no MQTT broker here: apt install mosquitto")
    return found


def until(true: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


class Broker:
    """Mosquitto that can be stopped and started again, without persistence."""

    def __init__(self, folder: Path, *settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._command = [mosquitto(), "-c", str(folder / "mosquitto.conf")]
        lines = [f"listener {self.port} 127.0.0.1", *(settings or ["allow_anonymous true"])]
        if hasattr(socket, "AF_UNIX") and (Path("/etc/passwd").exists()):
            lines.append("user root")  # otherwise it cannot read files of the tests when it is started as root
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens)

    def _listens(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "the broker has exited"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Subscriber:
    """Client that records every message."""

    def __init__(self, broker: Broker, **settings: Any) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.messages: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        if "username" in settings:
            self._client.username_pw_set(settings["username"], settings["password"])
        if "tls" in settings:
            self._client.tls_set_context(settings["tls"])
        self._client.on_connect = lambda client, *_: client.subscribe("#")
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._port = broker.port

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._subscribed.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def of(self, topic: str) -> list[bytes]:
        return [payload for name, payload in self.messages if name == topic]

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, retain=True).wait_for_publish(10)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        self.messages.append((message.topic, message.payload))
        if message.payload:
            self.retained[message.topic] = message.payload
        else:
            self.retained.pop(message.topic, None)

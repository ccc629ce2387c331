"""Messages of an MQTT topic as lines."""

import queue
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sinks.mqtt.broker_address import BrokerAddress
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["TopicLines"]

_KEEPALIVE_S = 30
_ANSWER_S = 6.0
_WAIT_S = 0.2
_WAITING = 10_000
"""Lines that wait to be read at most; the oldest are dropped."""


class TopicLines:
    """Lines of the messages that are published to a topic: each message has one row or several.

    A lost connection is restored by the client. Retained messages are skipped, because they are from before the start.
    """

    def __init__(self, address: BrokerAddress) -> None:
        """Connect and subscribe.

        Raises:
            SourceError: the broker cannot be reached, or refuses the connection or the topic.
            MissingDependency: paho-mqtt is not installed.
        """
        install = "`pip install 'paho-mqtt>=2'`, or the extra `mqtt`"
        with needs_package("--source mqtt:", "paho-mqtt 2 or later", install):
            from paho.mqtt.client import Client, MQTTv311
            from paho.mqtt.enums import CallbackAPIVersion
        self._address = address
        self._lines: queue.Queue[str | int | None] = queue.Queue()
        self._lost = 0
        self._answers: queue.Queue[str] = queue.Queue()
        self._client = client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv311)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        if address.tls is not None:
            client.tls_set_context(address.tls)
        try:
            client.connect(address.host, address.port, _KEEPALIVE_S)
            client.loop_start()
            answer = self._answers.get(timeout=_ANSWER_S)
        except (OSError, queue.Empty) as error:
            client.loop_stop()
            reason = "no answer" if isinstance(error, queue.Empty) else error.strerror or error
            raise SourceError(
                f"The MQTT broker {address} cannot be used: {reason}. Check its address, and that it is running."
            ) from error
        if answer:
            self.close()
            raise SourceError(
                f"The MQTT broker {address} refuses the topic {address.topic}: {answer}. Expected KDEDGE_MQTT_USERNAME "
                "and KDEDGE_MQTT_PASSWORD of a user that may read it."
            )

    def __iter__(self) -> Iterator[str | int]:
        lost_before = 0
        while True:
            try:
                line = self._lines.get(timeout=_WAIT_S)
            except queue.Empty:
                continue
            if line is None:
                return
            if (lost := self._lost) > lost_before:
                yield lost - lost_before
                lost_before = lost
            yield line

    def close(self) -> None:
        """Disconnect, and end the iteration."""
        self._client.disconnect()
        self._client.loop_stop()
        self._lines.put(None)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._answers.put(str(reason))
        else:  # also after a lost connection
            client.subscribe(self._address.topic, qos=1)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._lines.put(0)

    def _on_subscribe(self, client: Any, userdata: Any, mid: Any, reasons: Any, properties: Any) -> None:
        self._answers.put(next((str(reason) for reason in reasons if reason.is_failure), ""))

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        if message.retain:
            return
        for line in message.payload.decode("utf-8", "replace").splitlines():
            if self._lines.qsize() >= _WAITING:
                with suppress(queue.Empty):
                    self._lines.get_nowait()
                    self._lost += 1
            self._lines.put(line)

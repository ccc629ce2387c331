"""Connection to an MQTT broker that keeps retained topics up to date, from a thread of its own."""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kdedge_runtime.errors import UsageError
from kdedge_runtime.sinks.mqtt.broker_address import BrokerAddress
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["BrokerConnection", "Payload"]

Payload = bytes | Callable[[], bytes]
"""Payload of a topic, or a function that returns it, called in the connection's thread."""
_log = logging.getLogger(__name__)
_KEEPALIVE_S = 30
_FIRST_ANSWER_S = 6.0
"""Longest wait at the start in seconds, for a broker that may refuse the credentials."""
_ANSWER_S = 5.0
_MIN_DELAY_S, _MAX_DELAY_S = 1.0, 60.0
"""First and longest time between two attempts to connect in seconds."""
_HELD_S = 2 * _MAX_DELAY_S
"""Time in seconds after which a connection counts as held.

Two runs with the same topic take over from each other after at most the longest delay, so neither connection holds.
"""
_TICK_S = 0.1
_JOIN_TIMEOUT_S = 3.0
_FAREWELL_S = 2.0
_TEMPORARY = ("Server unavailable", "Server busy")
"""Reasons of a refusal that ends by itself, by the names of paho-mqtt."""


class BrokerConnection:
    """Publishes the newest payload of every topic, retained, whenever the broker can be reached.

    Values are put from any thread without blocking. Only the newest value of a topic is kept, so memory is bounded
    while the broker is away. After every connect, all topics are published again. The topic of the last will is
    published with an acknowledgment (QoS 1), which reports missing rights. That needs MQTT 5; older brokers get 3.1.1.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        will: tuple[str, bytes],
        first: Mapping[str, bytes],
        owned: str,
        leftovers: Callable[[str, bytes], Iterable[str]] = lambda topic, payload: (),
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a connection.

        Args:
            address: broker.
            client_id: identifier of the client, unique on the broker.
            will: topic and payload that the broker publishes when the connection is lost.
            first: payloads by topic that are published before others, followed by the last will.
            owned: pattern of topics whose retained payloads are passed to `leftovers`.
            leftovers: function of a retained topic and its payload that returns the topics to delete.
            tick: function called about ten times a second while connected.

        Raises:
            MissingDependency: paho-mqtt is not installed.
        """
        with needs_package("--mqtt", "paho-mqtt 2 or later", "`pip install 'paho-mqtt>=2'`, or the extra `mqtt`"):
            import paho.mqtt.enums  # noqa: F401  # paho-mqtt 1 has none
        self._address = address
        self._client_id = client_id
        self._owned = owned
        self._leftovers = leftovers
        self._tick = tick
        self._will = will
        self._lock = threading.Lock()
        self._newest: dict[str, Payload] = {**first, will[0]: will[1]}
        self._pending = set(self._newest)
        self._closing = threading.Event()
        self._answered = threading.Event()
        self._refusal: str | None = None
        self._is_connected = self._was_connected = False
        self._has_logged_failure = self._has_logged_success = False
        """Logged since the start or the last connection that held."""
        self._delay_s = _MIN_DELAY_S
        self._is_outdated = False
        self._receipt: Any = None
        self._farewell = ""
        """Reason for which the broker ended the connection."""
        self._thread = threading.Thread(target=self._run, name="kdedge-mqtt", daemon=True)
        self._client = self._new_client()

    @property
    def is_connected(self) -> bool:
        """True while the broker accepts what is published."""
        return self._is_connected

    def start(self) -> None:
        """Start connecting. A broker that cannot be reached yet is retried in the background.

        Raises:
            UsageError: the broker refuses the connection, such as for wrong credentials, or its certificate is invalid.
        """
        self._thread.start()
        self._answered.wait(_FIRST_ANSWER_S)
        if self._refusal is not None and not self._was_connected:
            self._closing.set()
            raise UsageError(self._refusal)

    def put(self, topic: str, payload: Payload) -> None:
        """Set the payload of a topic. An earlier one that was not published yet is dropped."""
        with self._lock:
            self._newest.pop(topic, None)  # topics are published in the order of their last change
            self._newest[topic] = payload
            self._pending.add(topic)

    def close(self) -> None:
        """Publish what is pending and the last will, for at most two seconds, and disconnect."""
        self.put(*self._will)
        self._closing.set()
        self._thread.join(_JOIN_TIMEOUT_S)  # a thread that is still connecting is abandoned; it is a daemon

    def _new_client(self) -> Any:
        from paho.mqtt.client import Client, MQTTv5, MQTTv311
        from paho.mqtt.enums import CallbackAPIVersion

        protocol = MQTTv311 if self._is_outdated else MQTTv5
        client = Client(CallbackAPIVersion.VERSION2, client_id=self._client_id, protocol=protocol)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        topic, payload = self._will
        client.will_set(topic, payload, qos=1, retain=True)
        if self._address.username is not None:
            client.username_pw_set(self._address.username, self._address.password)
        if self._address.tls is not None:
            client.tls_set_context(self._address.tls)
        return client

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._connect()
                self._serve()
            except OSError as error:
                self._report(error)
            except Exception as error:  # such as of a damaged packet or image; the thread must not end
                self._report(ConnectionError(f"{type(error).__name__}: {error}"))
                self._client = self._new_client()
            finally:
                self._is_connected = False
                self._answered.set()
            self._closing.wait(self._delay_s)
            self._delay_s = min(2 * self._delay_s, _MAX_DELAY_S)

    def _connect(self) -> None:
        """Connect and wait for the broker's answer.

        Raises:
            OSError: the broker cannot be reached, or refuses the connection.
        """
        was_outdated = self._is_outdated
        self._refusal, self._farewell = None, ""
        self._client.connect(self._address.host, self._address.port, _KEEPALIVE_S)
        try:
            self._await(lambda: self._is_connected)
        except ConnectionError:
            if self._is_outdated == was_outdated:
                raise
            self._client = self._new_client()
            self._client.connect(self._address.host, self._address.port, _KEEPALIVE_S)
            self._await(lambda: self._is_connected)
        self._await(lambda: not self._flush() and self._receipt.is_published())
        if not self._was_connected or (self._has_logged_failure and not self._has_logged_success):
            _log.info("mqtt: connected to %s, publishing to %s/…", self._address, self._address.topic)
            self._has_logged_success = self._has_logged_failure
        self._was_connected = True
        self._answered.set()

    def _await(self, true: Callable[[], bool]) -> None:
        """Process the connection until a condition is met.

        Raises:
            OSError: the broker refuses the connection or closes it, or does not answer in time.
        """
        deadline = time.monotonic() + _ANSWER_S
        while not true():
            self._process()
            if time.monotonic() > deadline:
                raise TimeoutError("no reply from an MQTT broker")

    def _process(self) -> None:
        """Process incoming and outgoing packets for a moment.

        Raises:
            OSError: the broker refuses something or closes the connection.
        """
        problem = self._client.loop(_TICK_S)
        if self._refusal is not None:
            raise ConnectionRefusedError(self._refusal)
        if self._farewell == "Session taken over":
            raise ConnectionError(
                f"another program publishes to {self._address.topic}; each camera needs a topic of its own"
            )
        if problem:
            raise ConnectionError("the connection was closed")

    def _serve(self) -> None:
        """Publish until the connection is lost or closed."""
        held_at_s = time.monotonic() + _HELD_S
        while not self._closing.is_set():
            if time.monotonic() >= held_at_s:
                self._delay_s = _MIN_DELAY_S
                self._has_logged_failure = self._has_logged_success = False
            self._tick()
            self._flush()
            self._process()
        deadline = time.monotonic() + _FAREWELL_S
        # A socket that is closed before the broker has answered would be reset, and the broker would lose its content.
        while (self._flush() or not self._receipt.is_published()) and time.monotonic() < deadline:
            self._process()
        self._client.disconnect()
        self._client.loop(_TICK_S)

    def _flush(self) -> bool:
        """Publish pending payloads until the socket is full. Return True if some are left."""
        while not self._client.want_write():
            with self._lock:
                topic = next((topic for topic in self._newest if topic in self._pending), None)
                if topic is None:
                    return False
                self._pending.discard(topic)
                payload = self._newest[topic]
            content = payload if isinstance(payload, bytes) else payload()
            is_status = topic == self._will[0]
            receipt = self._client.publish(topic, content, qos=int(is_status), retain=True)
            if is_status:
                self._receipt = receipt
        with self._lock:
            return bool(self._pending)

    def _report(self, error: OSError) -> None:
        """Log the first failure after the start or a connection that held. Later ones are silent."""
        # Other TLS errors may be those of a broker that is just starting.
        if isinstance(error, ssl.SSLCertVerificationError) or getattr(error, "reason", "") == "WRONG_VERSION_NUMBER":
            reason = getattr(error, "verify_message", "") or "the port has no TLS"
            reason = reason.rstrip(".")
            self._refusal = (
                f"The TLS connection to the MQTT broker {self._address} failed: {reason}. Expected a certificate for "
                "this host. Name its authority with --mqtt-ca FILE, or use mqtt:// for a broker without TLS."
            )
        is_fatal = self._refusal is not None and not self._was_connected  # raised by `start`
        if not self._has_logged_failure and not is_fatal:
            port = "with TLS" if self._address.tls is not None else "without TLS"
            reason = self._refusal or (
                f"The MQTT broker {self._address} cannot be used: {error.strerror or error}. Expected a broker "
                f"{port} at this port."
            )
            _log.warning("mqtt: %s The run continues, and the connection is retried.", reason)
        self._has_logged_failure = True

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not reason.is_failure:
            with self._lock:
                self._pending.update(self._newest)
            client.subscribe(self._owned)
            self._is_connected = True
        elif str(reason) == "Unsupported protocol version" and not self._is_outdated:
            self._is_outdated = True
        elif str(reason) not in _TEMPORARY:
            self._refuse("the connection", reason)

    def _on_publish(self, client: Any, userdata: Any, message: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refuse(f"what is published to {self._address.topic}/#", reason)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._farewell = str(reason)

    def _refuse(self, what: str, reason: Any) -> None:
        self._refusal = (
            f"The MQTT broker {self._address} refuses {what}: {reason}. Expected KDEDGE_MQTT_USERNAME and "
            f"KDEDGE_MQTT_PASSWORD of a user that may publish to {self._address.topic}/# and homeassistant/#."
        )

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        """Delete what an earlier run left behind."""
        if message.retain and message.payload:
            for topic in self._leftovers(message.topic, message.payload):
                self.put(topic, b"")

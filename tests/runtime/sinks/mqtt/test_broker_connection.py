"""Connection to a real broker that is absent, killed, slow or refuses."""

import json
import logging
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from broker import Broker, Subscriber, mosquitto, until
from publishing import address_of, prediction_of

from kdedge_runtime.cli.main import main
from kdedge_runtime.errors import UsageError
from kdedge_runtime.sinks.mqtt import BrokerAddress, MqttPublisher
from kdedge_runtime.sinks.mqtt.connection import BrokerConnection
from kdedge_runtime.stream.statistics import RunProgress

COMMAND = [sys.executable, "-c", "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"]


def test_lost_client_is_unavailable(broker: Broker, model_path: Path) -> None:
    command = [
        *COMMAND,
        str(model_path),
        "--source",
        "synthetic:",
        "--mqtt",
        f"mqtt://127.0.0.1:{broker.port}/home/porch",
    ]
    with Subscriber(broker) as live, subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        until(lambda: live.retained.get("home/porch/status") == b"online")
        process.kill()
        until(lambda: live.retained["home/porch/status"] == b"offline")


def test_broker_that_is_killed_and_restarted_gets_the_newest(
    broker: Broker, progress: RunProgress, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "kdedge_runtime"), MqttPublisher(address_of(broker), "a.onnx") as sink:
        sink.write(prediction_of("open", 0.9), progress)
        with Subscriber(broker) as live:
            until(lambda: live.retained.get("home/porch/status") == b"online")
        broker.kill()
        until(lambda: not sink._connection.is_connected)
        slowest_s, ended = 0.0, time.monotonic() + 1.5
        for index in range(10**9):
            started = time.monotonic()
            sink.write(prediction_of(f"label {index}", 0.9), progress)
            slowest_s = max(slowest_s, time.monotonic() - started)
            assert not sink.wants_overlay
            if started > ended:
                break
            time.sleep(0.005)
        assert slowest_s < 1, "the run does not wait for the broker"
        assert len(sink._connection._newest) == 7, "one value per topic"
        newest = sink._published[None][0].label
        broker.start()
        with Subscriber(broker) as live:
            until(lambda: live.retained.get("home/porch/status") == b"online")
            until(lambda: "home/porch/state" in live.retained and len(live.retained) == 7)
            assert json.loads(live.retained["home/porch/state"])["label"] == newest != "open"
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split()[1] for message in messages] == ["connected", "The", "connected"], messages


def test_broker_may_start_later(tmp_path: Path, progress: RunProgress) -> None:
    late = Broker(tmp_path)
    started = time.monotonic()
    with MqttPublisher(address_of(late), "a.onnx") as sink:
        assert time.monotonic() - started < 5, "a closed port answers at once"
        sink.write(prediction_of("open", 0.9), progress)
        with late, Subscriber(late) as live:
            until(lambda: live.retained.get("home/porch/status") == b"online")
            assert json.loads(live.retained["home/porch/state"])["label"] == "open"


def test_silent_port_delays_the_start_only_briefly(progress: RunProgress, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("paho.mqtt", reason="needs paho-mqtt")
    monkeypatch.setattr("kdedge_runtime.sinks.mqtt.connection._FIRST_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = BrokerAddress("127.0.0.1", silent.getsockname()[1], "home/porch")
        with MqttPublisher(address, "a.onnx") as sink:
            sink.write(prediction_of("open", 0.9), progress)
            assert not sink.wants_overlay


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """Broker with the user `cam`, who may write to home/porch but not to home/attic."""
    passwords, rights = tmp_path / "passwords", tmp_path / "rights"
    mosquitto()
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "cam", "secret"], check=True, capture_output=True)
    rights.write_text("user cam\ntopic readwrite home/porch/#\ntopic readwrite homeassistant/#\n")
    rights.chmod(0o600)
    settings = ("allow_anonymous false", f"password_file {passwords}", f"acl_file {rights}")
    with Broker(tmp_path, *settings) as opened:
        yield opened


def test_credentials_are_accepted(guarded: Broker, progress: RunProgress) -> None:
    with (
        Subscriber(guarded, username="cam", password="secret") as live,
        MqttPublisher(address_of(guarded, username="cam", password="secret"), "a.onnx") as sink,
    ):
        sink.write(prediction_of("open", 0.9), progress)
        until(lambda: live.retained.get("home/porch/status") == b"online")


@pytest.mark.parametrize(
    "wrong",
    [{}, {"username": "cam", "password": "wrong"}, {"username": "cam", "password": "secret", "topic": "home/attic"}],
    ids=["anonymous", "password", "topic"],
)
def test_refusal_is_an_error_at_the_start(guarded: Broker, wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="Not authorized") as raised:
        MqttPublisher(address_of(guarded, **wrong), "a.onnx").__enter__()
    message = str(raised.value)
    assert "KDEDGE_MQTT_USERNAME" in message
    assert f"127.0.0.1:{guarded.port}" in message
    assert "secret" not in message and "wrong" not in message


def test_run_reports_refusal_before_the_camera_opens(
    guarded: Broker, model_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KDEDGE_MQTT_USERNAME", "cam")
    monkeypatch.setenv("KDEDGE_MQTT_PASSWORD", "wr0ng-secret")
    url = f"mqtt://127.0.0.1:{guarded.port}/home/porch"
    assert main([str(model_path), "--source", "/dev/video99", "--mqtt", url]) == 2
    error = capfd.readouterr().err
    assert "refuses the connection" in error
    assert "video99" not in error and "wr0ng-secret" not in error


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Self-made CA `ca.pem`, with a certificate of 127.0.0.1 in `server.pem` and `server.key`."""
    mosquitto()
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=kdedge-test-ca",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem -extfile names",
    ):
        (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_tls_with_a_self_made_authority(authority: Path, progress: RunProgress) -> None:
    files = (f"certfile {authority / 'server.pem'}", f"keyfile {authority / 'server.key'}", "allow_anonymous true")
    with Broker(authority, *files) as broker:
        url, ca_file = f"mqtts://127.0.0.1:{broker.port}/home/porch", str(authority / "ca.pem")
        trusting = ssl.create_default_context(cafile=ca_file)
        address = BrokerAddress.parse(url, environment={"KDEDGE_MQTT_CA": ca_file})
        with Subscriber(broker, tls=trusting) as live, MqttPublisher(address, "a.onnx") as sink:
            sink.write(prediction_of("open", 0.9), progress)
            until(lambda: live.retained.get("home/porch/status") == b"online")
        with pytest.raises(UsageError, match="--mqtt-ca") as raised:
            MqttPublisher(BrokerAddress.parse(url, environment={}), "a.onnx").__enter__()
        assert "certificate" in str(raised.value)
        other = replace(BrokerAddress.parse(url, ca_file, environment={}), host="localhost")
        with pytest.raises(UsageError, match="localhost"):
            MqttPublisher(other, "a.onnx").__enter__()


@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_wrong_port_is_logged_and_retried(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    address = BrokerAddress.parse(f"mqtts://127.0.0.1:{broker.port}/home/porch", environment={})
    with MqttPublisher(address, "a.onnx") as sink:
        assert not sink.wants_overlay
    assert "cannot be used" in caplog.text and "with TLS" in caplog.text


def test_second_run_with_the_same_topic_is_named(
    broker: Broker, progress: RunProgress, caplog: pytest.LogCaptureFixture
) -> None:
    with MqttPublisher(address_of(broker), "a.onnx"), MqttPublisher(address_of(broker), "b.onnx"):
        until(lambda: "another program publishes to home/porch" in caplog.text)


def _rivals_delays(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, done: Callable[[list[list[float]]], object]
) -> list[list[float]]:
    """Run two publishers with one topic until a condition is met; return the delays of each in seconds."""
    monkeypatch.setattr("kdedge_runtime.sinks.mqtt.connection._MIN_DELAY_S", 0.01)
    delays: list[list[float]] = []
    with MqttPublisher(address_of(broker), "a.onnx") as first, MqttPublisher(address_of(broker), "b.onnx") as second:
        for connection in (first._connection, second._connection):
            recorded: list[float] = []

            def wait(timeout_s: float, wait=connection._closing.wait, recorded=recorded) -> bool:
                recorded.append(timeout_s)
                return wait(timeout_s)

            monkeypatch.setattr(connection._closing, "wait", wait)
            delays.append(recorded)
        until(lambda: done(delays))
    return delays


def test_runs_with_the_same_topic_slow_down_and_log_once(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "kdedge_runtime"):
        for delays in _rivals_delays(broker, monkeypatch, lambda found: min(map(len, found)) >= 4):
            assert delays == [delays[0] * 2**index for index in range(len(delays))]
    assert caplog.text.count("another program publishes") == 2, "once for each run"
    assert caplog.text.count("mqtt: connected") <= 4, "at the start and after the first failure"


def test_connection_that_held_is_retried_soon_and_logged_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kdedge_runtime.sinks.mqtt.connection._HELD_S", 0.0)
    # A rival that interrupts the start of a connection may double some of the delays.
    _rivals_delays(broker, monkeypatch, lambda found: max(delays.count(0.01) for delays in found) > 2)
    assert caplog.text.count("another program publishes") > 2


def test_unexpected_error_does_not_end_the_connection(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    connection = BrokerConnection(address_of(broker), "flaky", ("home/porch/status", b"offline"), {}, "none/#")
    attempts: list[int] = []

    def flaky() -> bytes:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("an image that cannot be encoded")
        return b"second"

    with Subscriber(broker) as live:
        connection.start()
        connection.put("a", flaky)
        until(lambda: live.of("a") == [b"second"])
        connection.close()
    assert "ValueError: an image that cannot be encoded" in caplog.text


def test_broker_without_mqtt_5_is_supported(broker: Broker, progress: RunProgress) -> None:
    """A gateway answers MQTT 5 as old brokers do, and passes MQTT 3.1.1 to the real one."""
    levels: list[int] = []

    def serve(client: socket.socket) -> None:
        hello = client.recv(4096)
        levels.append(hello[hello.index(b"MQTT") + 4])
        if levels[-1] == 5:
            client.sendall(bytes([0x20, 2, 0, 1]))  # CONNACK: unacceptable protocol version
            client.close()
            return
        with client, socket.create_connection(("127.0.0.1", broker.port)) as real:
            real.sendall(hello)
            while ready := select.select([client, real], [], [], 10)[0]:
                content = ready[0].recv(65536)
                if not content:
                    return
                (real if ready[0] is client else client).sendall(content)

    def accept(gateway: socket.socket) -> None:
        for _ in range(2):
            serve(gateway.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as gateway, Subscriber(broker) as live:
        thread = threading.Thread(target=accept, args=(gateway,))
        thread.start()
        address = replace(address_of(broker), port=gateway.getsockname()[1])
        with MqttPublisher(address, "a.onnx") as sink:
            sink.write(prediction_of("open", 0.9), progress)
            until(lambda: live.retained.get("home/porch/status") == b"online")
        until(lambda: live.retained.get("home/porch/status") == b"offline")
        thread.join(10)
    assert levels == [5, 4]


def test_stalled_broker_keeps_one_value_per_topic(broker: Broker) -> None:
    """Values that cannot be written are replaced, not queued."""
    connection = BrokerConnection(address_of(broker), "stalled", ("home/porch/status", b"offline"), {}, "none/#")
    release, entered = threading.Event(), threading.Event()

    def slow() -> bytes:
        entered.set()
        release.wait(10)
        return b"first"

    with Subscriber(broker) as live:
        connection.start()
        connection.put("a", slow)
        assert entered.wait(10)
        for value in range(100):
            connection.put("a", str(value).encode())
        release.set()
        until(lambda: live.of("a")[-1:] == [b"99"])
        connection.close()
    assert live.of("a") == [b"first", b"99"]


def test_missing_package_names_the_extra(model_path: Path) -> None:
    code = (
        "import sys; sys.modules['paho'] = sys.modules['paho.mqtt'] = sys.modules['paho.mqtt.client'] = None\n"
        "from kdedge_runtime.cli.main import main\n"
        f"sys.exit(main([{str(model_path)!r}, '--source', 'synthetic:', '--mqtt', 'mqtt:///a']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 3
    assert "paho-mqtt" in done.stderr and "Traceback" not in done.stderr


def test_authority_without_broker_is_a_usage_error(model_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(model_path), "--source", "synthetic:", "--mqtt-ca", "ca.pem"]) == 2
    assert "--mqtt" in capfd.readouterr().err


def test_run_survives_its_broker(broker: Broker, model_path: Path, tmp_path: Path) -> None:
    lines = tmp_path / "seen.jsonl"
    url = f"mqtt://127.0.0.1:{broker.port}/home/porch"
    command = [*COMMAND, str(model_path), "--source", "synthetic:", "--crop", "door=0,0,0.5,1", "--mqtt", url]
    with subprocess.Popen([*command, "--jsonl", str(lines)], stderr=subprocess.PIPE, text=True) as process:
        with Subscriber(broker) as live:
            until(lambda: live.retained.get("home/porch/status") == b"online")
        broker.kill()
        size_bytes = lines.stat().st_size
        until(lambda: lines.stat().st_size > size_bytes + 10_000)
        broker.start()
        with Subscriber(broker) as live:
            until(lambda: live.retained.get("home/porch/status") == b"online")
            until(lambda: {"home/porch/door/state", "home/porch/snapshot"} <= live.retained.keys())
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            until(lambda: live.retained["home/porch/status"] == b"offline")
        errors = process.stderr.read()
    assert errors.count("mqtt: connected") == 2 and errors.count("mqtt: The MQTT broker") == 1, errors
    *_, newest, _ = (json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines())
    assert newest["region"] == "door"

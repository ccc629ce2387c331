"""systemd notifications: READY with the first prediction, watchdog for fresh frames only."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdedge_runtime.sinks.systemd import SystemdNotifier


@dataclass
class FakeAnswer:
    age_ms: float


@dataclass
class FakeProgress:
    frames: int = 7
    recent_fps: float = 12.5


class Listener:
    """Receiving end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    heard = Listener(tmp_path / "notify")
    yield heard
    heard.socket.close()


def write(notifier: SystemdNotifier, age_ms: float) -> None:
    notifier.write(FakeAnswer(age_ms), FakeProgress())  # type: ignore[arg-type]


def test_ready_is_sent_with_first_prediction_and_stopping_at_exit(listener: Listener) -> None:
    with SystemdNotifier(listener.address, None) as notifier:
        assert listener.heard() == []
        write(notifier, 20)
        write(notifier, 20)
        assert listener.heard() == ["READY=1"]
    assert listener.heard() == ["STOPPING=1"]


def test_watchdog_is_notified_at_intervals(listener: Listener) -> None:
    now = iter([0.0, 1.0, 7.0, 8.0, 16.0])
    notifier = SystemdNotifier(listener.address, 30.0, clock=lambda: next(now))
    for _ in range(5):
        write(notifier, 20)
    heard = listener.heard()
    pets = [message for message in heard if message.startswith("WATCHDOG=1")]
    assert len(pets) == 3, "at 0, 8 and 16 s"
    assert pets[0] == "WATCHDOG=1\nSTATUS=7 frames, 12.5 fps, 20 ms old"


def test_stale_frames_do_not_notify_watchdog(listener: Listener) -> None:
    now = iter([float(second) for second in range(0, 100, 10)])
    notifier = SystemdNotifier(listener.address, 30.0, clock=lambda: next(now))
    write(notifier, 16_000)
    write(notifier, 16_000)
    assert listener.heard() == ["READY=1"]
    write(notifier, 14_000)
    assert len(listener.heard()) == 1


def test_unreachable_socket_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SystemdNotifier(str(tmp_path / "gone"), 30.0) as notifier:
        write(notifier, 20)
        write(notifier, 20)
    assert [record.message for record in caplog.records] == [
        "systemd's NOTIFY_SOCKET is not reachable: No such file or directory"
    ]


def test_abstract_socket_is_supported(tmp_path: Path) -> None:
    name = f"kdedge-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"\0{name}")
        write(SystemdNotifier(f"@{name}", None), 20)
        assert end.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"NOTIFY_SOCKET": "/x"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000"}, 30.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "often"}, None),
    ],
)
def test_settings_are_read_from_environment(environment: dict[str, str], watchdog_s: float | None) -> None:
    notifier = SystemdNotifier.from_environment(environment)
    assert notifier is not None and notifier._watchdog_s == watchdog_s


def test_no_notifier_without_systemd() -> None:
    assert SystemdNotifier.from_environment({}) is None
    assert SystemdNotifier.from_environment({"NOTIFY_SOCKET": ""}) is None


def test_run_notifies_systemd(listener: Listener, model_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"]
    environment = os.environ | {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "2000000"}
    ran = subprocess.run(
        [*command, model_path, "--source", "synthetic:", "--max-frames", "40"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    heard = listener.heard()
    assert (heard[0], heard[-1]) == ("READY=1", "STOPPING=1")
    assert any(message.startswith("WATCHDOG=1\nSTATUS=") for message in heard)


def test_source_without_frames_is_not_ready(listener: Listener, model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/1.png").write_bytes(b"no picture")
    command = [sys.executable, "-c", "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"]
    ran = subprocess.run(
        [*command, model_path, "--source", tmp_path / "broken"],
        env=os.environ | {"NOTIFY_SOCKET": listener.address},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 5
    assert listener.heard() == ["STOPPING=1"]

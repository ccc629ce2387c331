"""Sensors that send line after line: standard input, growing files, serial ports and MQTT topics."""

import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, until

from kdedge_runtime.errors import DataError, SourceError, UsageError
from kdedge_runtime.modalities.timeseries import TimeseriesInput
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.live_source import Backoff
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.sources.timeseries.live import LiveSeries

SPEC = TimeseriesInput(("ax", "ay"), 4, (0.0, 0.0), (1.0, 1.0), rate_hz=10.0, hop=2)
QUICK = Backoff(first_s=0.01, longest_s=0.05, timeout_s=1)


class Wire:
    """Scripted sender of lines."""

    def __init__(self) -> None:
        self.sent: queue.Queue[str | int | None] = queue.Queue()
        self.openings = 0
        self.broken = False

    def connect(self) -> "Wire":
        self.openings += 1
        if self.broken:
            raise SourceError("unplugged")
        return self

    def send(self, *numbers: float) -> None:
        for number in numbers:
            self.sent.put(f"{number},{-number}\n")

    def __iter__(self) -> Iterator[str | int]:
        while (line := self.sent.get()) is not None:
            yield line
        if self.broken:
            raise SourceError("unplugged")

    def close(self) -> None:
        self.sent.put(None)


def firsts(frames: list[Frame]) -> list[float]:
    return [float(frame.sample[0, 0]) for frame in frames]


@contextmanager
def frames_of(source: Any) -> Iterator[list[Frame]]:
    """Collect the frames of a source in a thread."""
    collected: list[Frame] = []
    with source:
        thread = threading.Thread(target=lambda: collected.extend(source))
        thread.start()
        yield collected
    thread.join(10)
    assert not thread.is_alive()


def test_windows_are_returned_as_rows_arrive() -> None:
    wire = Wire()
    with frames_of(LiveSeries(SPEC, "wire", wire.connect, 2)) as frames:
        wire.send(0, 1, 2)
        time.sleep(0.2)
        assert not frames
        wire.send(3, 4, 5)
        until(lambda: len(frames) == 2)
    assert firsts(frames) == [0, 2] and frames[1].span_s == pytest.approx((0.2, 0.6))


def test_stopped_sensor_is_reported_and_gives_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    with (
        caplog.at_level(logging.WARNING),
        frames_of(LiveSeries(SPEC, "wire", wire.connect, 2, silence_s=0.2)) as frames,
    ):
        wire.send(0, 1, 2, 3, 4)
        until(lambda: "wire: no rows for" in caplog.text)
        time.sleep(0.3)
        assert firsts(frames) == [0]
        wire.send(10, 11, 12)
        until(lambda: "sends rows again" in caplog.text)
        assert firsts(frames) == [0]
        wire.send(13)
        until(lambda: len(frames) == 2)
    assert firsts(frames) == [0, 10]
    assert caplog.text.count(": no rows for") == 1


def test_lines_without_a_row_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    source = LiveSeries(SPEC, "wire", wire.connect, 2)
    wire.sent.put("booting version 3\n")
    wire.sent.put("ay,ax\n")
    wire.send(8, 9)
    wire.sent.put("3\n")
    wire.sent.put("\n")
    wire.send(0, 1, 2, 3)
    wire.sent.put(None)
    with caplog.at_level(logging.WARNING), source:
        (frame,) = source
    assert frame.sample.tolist() == [[-0.0, 0], [-1, 1], [-2, 2], [-3, 3]]
    assert source.unreadable == 2 and len([line for line in caplog.records if "skipped" in line.message]) == 2


@pytest.mark.parametrize("lost", [0, 3])
def test_lines_that_were_lost_are_in_no_window(lost: int) -> None:
    wire = Wire()
    wire.send(8, 9)
    wire.sent.put(lost)
    wire.send(0, 1, 2, 3)
    wire.sent.put(None)
    with LiveSeries(SPEC, "wire", wire.connect, 2) as source:
        assert firsts(list(source)) == [0]
    assert source.dropped == lost


def test_pause_without_timestamps_is_a_break() -> None:
    wire = Wire()
    with frames_of(LiveSeries(SPEC, "wire", wire.connect, 2)) as frames:
        wire.send(8, 9)
        time.sleep(1.0)
        wire.send(0, 1, 2, 3)
        until(lambda: frames)
    assert firsts(frames) == [0]


def test_blank_lines_are_silence(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    source = LiveSeries(SPEC, "wire", wire.connect, 2, silence_s=0.2)
    with caplog.at_level(logging.WARNING), frames_of(source):
        wire.send(0)

        def warned() -> bool:
            wire.sent.put("\n")
            time.sleep(0.02)
            return ": no rows for" in caplog.text

        until(warned)


def test_failure_of_a_reader_ends_the_run() -> None:
    class Failing(Wire):
        def __iter__(self) -> Iterator[str | int]:
            raise RuntimeError("driver")

    with LiveSeries(SPEC, "wire", Failing().connect, 2) as source, pytest.raises(SourceError, match="driver"):
        list(source)


def test_sender_of_something_else_fails() -> None:
    wire = Wire()
    for _ in range(50):
        wire.sent.put("temperature is fine\n")
    with LiveSeries(SPEC, "wire", wire.connect, 2) as source, pytest.raises(SourceError, match="ax"):
        list(source)


def test_header_in_another_unit_ends_the_run() -> None:
    wire = Wire()
    wire.sent.put("ax [m/s²],ay\n")
    wire.send(0, 1, 2, 3)
    wire.sent.put(None)
    with (
        LiveSeries(replace(SPEC, units=("g", "")), "wire", wire.connect, 2) as source,
        pytest.raises(DataError, match="ax"),
    ):
        list(source)


def test_backwards_time_drops_a_window_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    wire.sent.put("time,ax,ay\n")
    for time_s, value in ((1.0, 0), (1.1, 1), (0.5, 2), (0.6, 3), (0.7, 4), (0.8, 5)):
        wire.sent.put(f"{time_s},{value},0\n")
    wire.sent.put(None)
    with caplog.at_level(logging.WARNING), LiveSeries(SPEC, "wire", wire.connect, 2) as source:
        frames = list(source)
    assert firsts(frames) == [2] and source.unreadable == 1 and "backwards" in caplog.text


def test_lost_connection_is_opened_again() -> None:
    wire = Wire()
    source = LiveSeries(SPEC, "wire", wire.connect, 2, reopens=True, backoff=QUICK)
    with frames_of(source) as frames:
        wire.send(0, 1, 2)
        wire.sent.put(None)
        until(lambda: wire.openings > 1)
        wire.send(10, 11, 12, 13)
        until(lambda: frames)
    assert firsts(frames) == [10] and source.reconnects >= 1


def test_connection_that_stays_lost_fails() -> None:
    wire = Wire()
    source = LiveSeries(SPEC, "wire", wire.connect, 2, reopens=True, backoff=Backoff(0.01, 0.02, 0.1))
    with source:
        wire.broken = True
        wire.sent.put(None)
        with pytest.raises(SourceError, match="unplugged"):
            list(source)


def test_standard_input_is_read_until_its_end() -> None:
    script = "from kdedge_runtime.modalities.timeseries import TimeseriesInput as T\n"
    script += "spec = T(('ax', 'ay'), 4, (0.0, 0.0), (1.0, 1.0), rate_hz=10.0, hop=2)\n"
    script += "with spec.open_source('stdin', 'all', hop_s=0.1) as source:\n"
    script += "    print([float(frame.sample[0, 0]) for frame in source])\n"
    rows = b"".join(b"%d,0\n" % number for number in range(6))
    done = subprocess.run(
        [sys.executable, "-c", script], input=b"\xff\n" + rows + b"6,", capture_output=True, check=True, timeout=60
    )
    assert done.stdout.strip() == b"[0.0, 1.0, 2.0]" and b"line break" in done.stderr


def test_growing_file_is_followed_through_rotation(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("ay,ax\n0,90\n0,91\n0,92\n0,93\n")
    with frames_of(SPEC.open_source(f"tail:{file}", "all")) as frames:
        with file.open("a") as log:
            log.write("0,0\n0,1\n0,2\n0,")
            log.flush()
            time.sleep(0.2)
            log.write("3\n")
        until(lambda: frames)
        with file.open("a") as log:
            log.write("0,4\n0,5\n")
        (tmp_path / "new").write_text("ax,ay\n" + "".join(f"{number},0\n" for number in range(20, 24)))
        (tmp_path / "new").replace(file)
        until(lambda: firsts(frames)[-1] > 2)
    assert firsts(frames) == [0, 2, 20]


def test_serial_port_is_read(tmp_path: Path) -> None:
    pytest.importorskip("serial", reason="needs pyserial")
    pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
    device, port = pty.openpty()
    with frames_of(SPEC.open_source(f"serial:{os.ttyname(port)}@9600", "all")) as frames:
        time.sleep(0.1)
        os.write(device, b".25,3\r\n")  # the end of a line
        for number in range(6):
            os.write(device, f"{number},{2 * number}\r\n".encode())
        until(lambda: len(frames) == 2)
    assert frames[1].sample.tolist() == [[2, 4], [3, 6], [4, 8], [5, 10]]
    os.close(device)
    os.close(port)


def test_missing_serial_port_is_named() -> None:
    pytest.importorskip("serial", reason="needs pyserial")
    with pytest.raises(SourceError, match="/dev/ttyNONE"), SPEC.open_source("serial:/dev/ttyNONE"):
        pass


def test_topic_is_read_in_json_and_csv(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        from paho.mqtt.publish import multiple, single

        at = {"hostname": "127.0.0.1", "port": broker.port}
        single("wrist/imu", "99,99", retain=True, **at)
        with frames_of(SPEC.open_source(f"mqtt://127.0.0.1:{broker.port}/wrist/imu", "all")) as frames:
            multiple(
                [
                    {"topic": "wrist/imu", "payload": f'{{"ax": {number}, "ay": 0, "time": {number / 10}}}'}
                    for number in range(3)
                ],
                **at,
            )
            multiple(
                [
                    {"topic": "other", "payload": "77,77"},
                    {"topic": "wrist/imu", "payload": '{"ax": 3, "ay": 0, "time": 0.3}'},
                ],
                **at,
            )
            until(lambda: frames)
            single("wrist/imu", "10,0\n11,0\n12,0\n13,0\n", **at)
            until(lambda: len(frames) >= 2)
    assert firsts(frames)[0] == 0 and frames[0].span_s == pytest.approx((0.0, 0.4))


def test_lost_broker_is_found_again(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        from paho.mqtt.publish import single

        clockless = replace(SPEC, rate_hz=None)
        with frames_of(clockless.open_source(f"mqtt://127.0.0.1:{broker.port}/imu", "all")) as frames:
            single("imu", "7,0\n8,0\n9,0", hostname="127.0.0.1", port=broker.port)
            time.sleep(0.3)
            broker.kill()
            broker.start()

            def sent() -> bool:
                single("imu", "1,0\n2,0\n3,0\n4,0", hostname="127.0.0.1", port=broker.port)
                time.sleep(0.2)
                return bool(frames)

            until(sent)
        assert firsts(frames)[0] == 1


def test_messages_that_are_too_many_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdedge_runtime.sources.timeseries.topic._WAITING", 3)
    with Broker(tmp_path) as broker:
        from paho.mqtt.publish import single

        from kdedge_runtime.sinks.mqtt.broker_address import BrokerAddress
        from kdedge_runtime.sources.timeseries.topic import TopicLines

        lines = TopicLines(BrokerAddress.parse(f"mqtt://127.0.0.1:{broker.port}/imu", option="--source"))
        single("imu", "0\n1\n2\n3\n4", qos=1, hostname="127.0.0.1", port=broker.port)
        until(lambda: lines._lost == 2)
        assert list(islice(lines, 4)) == [2, "2", "3", "4"]
        lines.close()


def test_absent_broker_is_named(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        port = broker.port
    with pytest.raises(SourceError, match=str(port)), SPEC.open_source(f"mqtt://127.0.0.1:{port}/imu"):
        pass


def test_refused_topic_is_named(tmp_path: Path) -> None:
    (tmp_path / "passwords").touch()
    settings = ("allow_anonymous false", f"password_file {tmp_path / 'passwords'}")
    with Broker(tmp_path, *settings) as broker, pytest.raises(SourceError, match="KDEDGE_MQTT_USERNAME"):
        SPEC.open_source(f"mqtt://127.0.0.1:{broker.port}/imu").__enter__()


@pytest.mark.parametrize("uri", ["serial:", "serial:/dev/ttyUSB0@fast", "mqtt://host", "mqtt://host/a/#"])
def test_invalid_addresses_are_refused(uri: str) -> None:
    with pytest.raises(UsageError, match=r"--source|serial"):
        SPEC.open_source(uri)


def test_newest_window_is_kept_for_a_slow_model() -> None:
    assert isinstance(SPEC.open_source("stdin"), LatestFrames)
    wire = Wire()
    with LatestFrames(LiveSeries(SPEC, "wire", wire.connect, 1)) as latest:
        wire.send(*range(4))
        frames = iter(latest)
        assert firsts([next(frames)]) == [0]
        wire.send(*range(4, 20))
        until(lambda: latest.dropped == 15)
        assert firsts([next(frames)]) == [16]
        wire.sent.put(None)

"""Sources of sounds: files, folders, downloads, and a microphone by a fake `arecord`."""

import http.server
import logging
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
from sound_files import tone, write_lying_wav

from kdedge_runtime.errors import MissingDependency, SourceError, UsageError
from kdedge_runtime.sources.audio import SoundWindows, open_audio_source
from kdedge_runtime.sources.audio.windows import sliding_windows
from kdedge_runtime.sources.source import is_still_source
from kdedge_runtime.util.arrays import Floats

RATE_HZ = 8_000
WINDOWS = SoundWindows(RATE_HZ, RATE_HZ, 0.5)


def cut(sound: Floats, block: int, length: int = 100, hop: int = 40) -> list[tuple[int, Floats]]:
    blocks = (sound[start : start + block] for start in range(0, len(sound), block))
    return list(sliding_windows(blocks, SoundWindows(1_000, length, hop / 1_000)))


@pytest.mark.parametrize("block", [7, 100, 1_000])
def test_windows_cover_a_sound_and_nothing_else(block: int) -> None:
    sound = np.arange(1, 258, dtype=np.float32)
    found = cut(sound, block)
    assert [start for start, _ in found] == [0, 40, 80, 120, 157]  # the last window ends with the sound
    assert all(np.array_equal(window, sound[start : start + 100]) for start, window in found)
    assert [start for start, _ in cut(sound[:180], block)] == [0, 40, 80]
    ((start, short),) = cut(sound[:30], block)
    assert start == 0 and np.array_equal(short, sound[:30])
    assert not cut(sound[:0], block)


def test_gaps_between_windows_are_refused() -> None:
    with pytest.raises(UsageError, match="--hop 2s leaves gaps"):
        SoundWindows(RATE_HZ, RATE_HZ, 2.0)


def test_file_of_another_rate_is_cut_at_the_rate_of_the_model(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(2.0, 16_000), 16_000)
    with open_audio_source(WINDOWS, str(tmp_path / "a.wav")) as source:
        assert source.fps == 2.0 and not is_still_source(source)
        frames = list(source)
    assert [frame.span_s for frame in frames] == [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)]
    assert [frame.name for frame in frames] == ["a.wav#0", "a.wav#1", "a.wav#2"]
    assert all(frame.sample.shape == (RATE_HZ,) for frame in frames)
    assert np.abs(frames[1].sample[200:-200] - tone(1.0, RATE_HZ)[200:-200]).max() < 0.01


def test_folder_skips_and_counts_what_is_not_a_sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "a.wav", tone(1.0, RATE_HZ), RATE_HZ)
    soundfile.write(tmp_path / "in" / "c.flac", tone(0.4, RATE_HZ), RATE_HZ)
    write_lying_wav(tmp_path / "b.wav", announced=8_000, present=100)
    (tmp_path / "notes.txt").touch()
    with open_audio_source(WINDOWS, str(tmp_path)) as source, caplog.at_level(logging.WARNING):
        frames = list(source)
    assert [(frame.index, frame.name) for frame in frames] == [(0, "a.wav#0"), (1, "in/c.flac#0")]
    assert frames[1].span_s == (0.0, 0.4) and len(frames[1].sample) == 3_200
    assert source.unreadable == 1 and "b.wav is truncated" in caplog.text


def test_single_damaged_file_and_missing_ones_are_errors(tmp_path: Path) -> None:
    path = write_lying_wav(tmp_path / "b.wav", announced=8_000, present=100)
    with pytest.raises(SourceError, match="truncated"), open_audio_source(WINDOWS, str(path)) as source:
        list(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="contains no sounds"), open_audio_source(WINDOWS, str(tmp_path / "empty")):
        pass
    with pytest.raises(SourceError, match=r"does not exist.*mic:"):
        open_audio_source(WINDOWS, str(tmp_path / "none.wav"))


def test_loop_continues_in_time(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.5, RATE_HZ), RATE_HZ)
    with open_audio_source(WINDOWS, str(tmp_path / "a.wav"), loop=True) as source:
        spans = [frame.span_s for _, frame in zip(range(5), source, strict=False)]
    assert spans == [(0.0, 1.0), (0.5, 1.5), (1.5, 2.5), (2.0, 3.0), (3.0, 4.0)]


def test_loop_repeats_a_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0, RATE_HZ), RATE_HZ)
    with open_audio_source(WINDOWS, str(tmp_path / "a.wav"), loop=True) as source:
        frames = [frame for _, frame in zip(range(3), source, strict=False)]
    assert [frame.index for frame in frames] == [0, 1, 2]
    with pytest.raises(UsageError, match="has no end"):
        open_audio_source(WINDOWS, "alsa:", loop=True)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    soundfile.write(tmp_path / "a.ogg", tone(1.5, RATE_HZ), RATE_HZ)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_file_behind_an_address_is_downloaded(served: str) -> None:
    with open_audio_source(WINDOWS, f"{served}/a.ogg?key=secret") as source:
        assert [(frame.name, frame.span_s) for frame in source] == [("a.ogg#0", (0.0, 1.0)), ("a.ogg#1", (0.5, 1.5))]
        assert "secret" not in source.name
    with pytest.raises(SourceError, match="404"), open_audio_source(WINDOWS, f"{served}/b.ogg"):
        pass
    with pytest.raises(UsageError, match="names no file"):
        open_audio_source(WINDOWS, served)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("HTTP/1.0 200 OK\r\nContent-Length: 9000\r\n\r\n", "truncated: 4 of 9,000"),
        ("HTTP/1.0 200 OK\r\n\r\n", "Content-Length"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 900000000\r\n\r\n", "at most 500 MB"),
        ("nonsense\r\n\r\n", "BadStatusLine"),
    ],
)
def test_incomplete_and_endless_answers_are_refused(head: str, message: str) -> None:
    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(head.encode() + b"RIFF")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        source = open_audio_source(WINDOWS, f"http://127.0.0.1:{server.getsockname()[1]}/a.wav")
        with pytest.raises(SourceError, match=message), source:
            pass
        thread.join()


def test_address_that_is_invalid_is_an_error() -> None:
    with pytest.raises(SourceError, match="InvalidURL"), open_audio_source(WINDOWS, "http://localhost/a b.wav"):
        pass


def test_download_is_stopped(served: str) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(SourceError, match="stopped"), open_audio_source(WINDOWS, f"{served}/a.ogg", stop=stop):
        pass


def fake_arecord(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """Put a program named `arecord` on the path; it notes its arguments."""
    program = folder / "arecord"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/arguments\n{body}\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "arguments"


def write_raw(path: Path, sound: Floats) -> Path:
    path.write_bytes(np.round(sound * 32_767).astype("<i2").tobytes())
    return path


def test_microphone_by_arecord_returns_windows_with_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.concatenate([tone(1.0, RATE_HZ), tone(1.0, RATE_HZ, 880.0)])
    raw = write_raw(tmp_path / "raw", sound)
    arguments = fake_arecord(tmp_path, monkeypatch, f"cat {raw}; sleep 20")
    with open_audio_source(WINDOWS, "alsa:plughw:1,0", "all") as source:
        assert source.live and source.fps == 2.0
        frames = [frame for _, frame in zip(range(3), source, strict=False)]
    assert arguments.read_text(encoding="utf-8").split() == [
        *("-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", "8000"),
        "--period-time=50000",
        *("-D", "plughw:1,0"),
    ]
    for number, frame in enumerate(frames):
        assert np.abs(frame.sample - sound[number * 4_000 :][:RATE_HZ]).max() < 1e-3
        assert frame.span_s is not None and abs(frame.span_s[1] - frame.span_s[0] - 1.0) < 1e-9
    assert frames[0].span_s == (0.0, 1.0)


def test_muted_microphone_gives_no_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sound = np.concatenate([np.zeros(7 * RATE_HZ, np.float32), tone(1.0, RATE_HZ)])
    fake_arecord(tmp_path, monkeypatch, f"cat {write_raw(tmp_path / 'raw', sound)}; sleep 20")
    with open_audio_source(WINDOWS, "alsa:", "all") as source, caplog.at_level(logging.WARNING):
        frame = next(iter(source))
    assert frame.sample.any()
    assert caplog.text.count("returns only zeros") == 1


def test_program_that_ends_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_arecord(tmp_path, monkeypatch, "echo 'arecord: no such device' >&2; exit 1")
    with pytest.raises(SourceError, match="no such device"), open_audio_source(WINDOWS, "alsa:"):
        pass


def test_default_microphone_falls_back_to_arecord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sounddevice", None)
    fake_arecord(tmp_path, monkeypatch, f"cat {write_raw(tmp_path / 'raw', tone(1.0, RATE_HZ))}; sleep 20")
    with open_audio_source(WINDOWS, "mic:", "all") as source:
        assert next(iter(source)).sample.shape == (RATE_HZ,)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    for uri, needed in (("mic:", "sounddevice"), ("alsa:", "alsa-utils")):
        with pytest.raises(MissingDependency, match=needed), open_audio_source(WINDOWS, uri):
            pass


def test_silence_and_clicks_of_a_sample_are_no_windows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    silent, click = np.zeros(RATE_HZ, np.float32), np.ones(1, np.float32)
    soundfile.write(tmp_path / "a.wav", np.concatenate([silent, tone(1.0, RATE_HZ)]), RATE_HZ)
    soundfile.write(tmp_path / "b.wav", silent, RATE_HZ)
    soundfile.write(tmp_path / "c.wav", click, RATE_HZ)
    with open_audio_source(WINDOWS, str(tmp_path)) as source, caplog.at_level(logging.WARNING):
        assert [(frame.index, frame.name, frame.span_s) for frame in source] == [
            (1, "a.wav#1", (0.5, 1.5)),
            (2, "a.wav#2", (1.0, 2.0)),
        ]
    assert source.unreadable == 2 and "only zeros" in caplog.text and "at least 10%" in caplog.text
    for name in ("b.wav", "c.wav"):
        with pytest.raises(SourceError, match=name), open_audio_source(WINDOWS, str(tmp_path / name)) as source:
            list(source)


class _PortAudioError(Exception):
    pass


class _FakeStream:
    """Input stream whose blocks the test delivers."""

    opened: "list[_FakeStream]" = []  # noqa: RUF012 - cleared by the fixture
    fails = False

    def __init__(self, **settings: Any) -> None:
        self.settings, self.closed = settings, False
        self.opened.append(self)

    def start(self) -> None:
        if self.fails:
            raise _PortAudioError("device busy")

    def close(self) -> None:
        self.closed = True

    def deliver(self, sound: Floats, *, overflow: bool = False) -> None:
        """Deliver a sound in blocks; with `overflow`, samples before it are lost."""
        size = self.settings["blocksize"]
        for start in range(0, len(sound), size):
            flags = SimpleNamespace(input_overflow=overflow and start == 0)
            self.settings["callback"](sound[start : start + size, None], size, None, flags)


@pytest.fixture
def portaudio(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    def check(**settings: Any) -> None:
        if settings["samplerate"] != module.rate:
            raise _PortAudioError("rate")

    def query(_device: Any, _kind: str) -> dict[str, float]:
        return {"default_samplerate": module.rate}

    module = SimpleNamespace(
        rate=float(RATE_HZ),
        PortAudioError=_PortAudioError,
        InputStream=_FakeStream,
        check_input_settings=check,
        query_devices=query,
    )
    monkeypatch.setattr(_FakeStream, "opened", [])
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def test_portaudio_windows_have_the_time_of_their_capture(
    portaudio: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("kdedge_runtime.sources.audio.microphone.time.monotonic", lambda: now)
    with open_audio_source(WINDOWS, "mic:3", "all") as source:
        (stream,) = _FakeStream.opened
        assert stream.settings["device"] == 3 and stream.settings["samplerate"] == RATE_HZ
        stream.deliver(tone(1.0, RATE_HZ))
        now = 107.0  # read late
        assert next(iter(source)).captured_at == 100.0
    assert stream.closed


@pytest.mark.parametrize("late", [True, False])
def test_lost_samples_leave_no_gap_in_a_window(
    portaudio: SimpleNamespace, caplog: pytest.LogCaptureFixture, late: bool
) -> None:
    after = tone(1.0, RATE_HZ, 880.0)
    with open_audio_source(WINDOWS, "mic:", "all") as source, caplog.at_level(logging.WARNING):
        (stream,) = _FakeStream.opened
        stream.deliver(tone(9.0 if late else 0.9, RATE_HZ))
        frames = iter(source)
        if late:  # 5 s of it are kept
            assert [len(next(frames).sample) for _ in range(9)] == [RATE_HZ] * 9
        for _ in range(2):
            stream.deliver(after, overflow=not late)
            assert np.array_equal(next(frames).sample, after)
            late = False
    assert caplog.text.count("dropped samples") == 1


def test_microphone_of_another_rate_is_converted(portaudio: SimpleNamespace) -> None:
    portaudio.rate = 44_100.0
    with open_audio_source(WINDOWS, "mic:USB", "all") as source:
        (stream,) = _FakeStream.opened
        assert stream.settings["samplerate"] == 44_100 and stream.settings["device"] == "USB"
        stream.deliver(tone(1.2, 44_100))
        assert np.abs(next(iter(source)).sample[200:-200] - tone(1.0, RATE_HZ)[200:-200]).max() < 0.01


def test_stream_that_does_not_start_is_closed(portaudio: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_FakeStream, "fails", True)
    with pytest.raises(SourceError, match="device busy"), open_audio_source(WINDOWS, "mic:"):
        pass
    assert _FakeStream.opened[0].closed


@pytest.mark.parametrize("frames", ["all", "latest"])
def test_muted_microphone_ends_with_its_source(portaudio: SimpleNamespace, frames: Literal["all", "latest"]) -> None:
    ended, muted = threading.Event(), np.zeros(RATE_HZ // 20, np.float32)

    def deliver() -> None:
        while not ended.wait(0.01):
            _FakeStream.opened[0].deliver(muted)

    with open_audio_source(WINDOWS, "mic:", frames) as source:
        threads = [threading.Thread(target=work, daemon=True) for work in (deliver, lambda: list(source))]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
    threads[1].join(5)
    assert not threads[1].is_alive()
    ended.set()
    threads[0].join()
    assert _FakeStream.opened[0].closed


def test_overrun_of_arecord_leaves_no_gap_in_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_raw(tmp_path / "before", tone(0.9, RATE_HZ))
    after = write_raw(tmp_path / "after", tone(8.0, RATE_HZ, 880.0))  # more than the pipe holds
    fake_arecord(tmp_path, monkeypatch, f"cat {before}; sleep 0.3; echo 'overrun!!!' >&2; cat {after}; sleep 20")
    with open_audio_source(WINDOWS, "alsa:", "all") as source:
        spectrum = np.abs(np.fft.rfft(next(iter(source)).sample))
    assert spectrum.argmax() == 880 and spectrum[440] < 0.01 * spectrum[880]

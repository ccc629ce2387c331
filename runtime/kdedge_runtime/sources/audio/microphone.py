"""Microphones by PortAudio, or by a pipe of `arecord`."""

import logging
import math
import os
import queue
import select
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np

from kdedge_runtime.errors import MissingDependency, SourceError
from kdedge_runtime.sources.audio.windows import SoundWindows
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.process import end_process
from kdedge_runtime.util.sounds import Resampler

__all__ = ["ArecordPipe", "PortAudioStream", "open_arecord", "open_microphone"]

_log = logging.getLogger(__name__)
_TIMEOUT_S = 10.0
"""Longest wait for the next block of samples in seconds."""
_BLOCK_S = 0.05
"""Duration of the blocks that are read from a microphone, in seconds; it adds to the latency."""
_QUEUED_S = 5.0
"""Longest lag of the windows behind the microphone in seconds; samples beyond it are lost."""
_MAX_MESSAGES = 1 << 20
"""Bytes of messages of `arecord` that are searched for overruns."""
_FULL_SCALE = 32768
_SILENT_S = 5.0
"""Duration of samples that are exactly 0 after which a warning is logged, in seconds."""


class _Samples(NamedTuple):
    """Samples in the order of their capture."""

    samples: Floats
    """PCM float32 `[n]` at the rate of the input."""
    captured_at: float
    """Time of the last sample on the `time.monotonic` clock."""
    after_gap: bool
    """True if samples before the block are lost."""


class _LiveWindows(ABC):
    """Windows of a microphone: the newest `samples` samples, every `hop_s` seconds.

    Windows that contain only zeros are not returned, since a muted or disconnected microphone measures nothing. Windows
    have no gaps: after lost samples, the next one is complete again.
    """

    def __init__(self, name: str, windows: SoundWindows, is_closed: Callable[[], bool]) -> None:
        self.name = name
        self.fps: float | None = 1 / windows.hop_s
        self._samples, self._hop, self._rate_hz = windows.length, windows.hop, windows.rate_hz
        self._silent_windows = math.ceil(_SILENT_S / windows.hop_s)
        self._is_closed = is_closed
        self._held = np.zeros(0, np.float32)
        self._captured_at = 0.0
        self._missing = windows.length
        self._zeros, self._gaps = 0, 0

    @abstractmethod
    def block(self) -> _Samples | None:
        """Wait for the next samples; None if the device failed."""

    def read(self) -> tuple[Floats, float] | None:
        """Return the next window and the time of its last sample; None if the device failed, or the source closed."""
        while True:
            while self._missing > 0:
                block = None if self._is_closed() else self.block()
                if block is None:
                    return None
                self._add(block)
            end = len(self._held) + self._missing  # samples beyond it belong to the next window
            captured_at = self._captured_at + self._missing / self._rate_hz
            window = self._held[end - self._samples : end]
            self._held, self._missing = self._held[end - self._samples :], self._missing + self._hop
            if window.any():
                self._zeros = 0
                return window.copy(), captured_at
            self._zeros += 1
            if self._zeros == self._silent_windows:
                _log.warning("%s returns only zeros. Check that it is connected and not muted; no predictions until "
                             "then.", self.name)  # fmt: skip

    def _add(self, block: _Samples) -> None:
        if block.after_gap:
            self._held, self._missing = self._held[:0], self._samples
            self._gaps += 1
            if self._gaps == 1:
                _log.warning("%s dropped samples (buffer overrun). Windows with gaps are skipped. A longer --hop needs "
                             "less time.", self.name)  # fmt: skip
        self._held = np.concatenate([self._held, block.samples])
        self._captured_at = block.captured_at
        self._missing -= len(block.samples)


class ArecordPipe(_LiveWindows):
    """Microphone through `arecord`, which writes raw PCM of 16 bits to its standard output."""

    def __init__(self, program: str, device: str, windows: SoundWindows, is_closed: Callable[[], bool]) -> None:
        """Start the program and wait for its first samples.

        Args:
            program: path of `arecord`.
            device: ALSA device, such as `plughw:1,0`; empty for the default.
            windows: rate, length and interval of the windows.
            is_closed: returns True when the source ends, also while the device is muted.

        Raises:
            SourceError: the program ended, or returned no samples within ten seconds.
        """
        super().__init__(f"alsa:{device}", windows, is_closed)
        self._block_bytes = 2 * max(1, round(_BLOCK_S * windows.rate_hz))
        self._odd, self._overruns = b"", 0
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        chosen = ["-D", device] if device else []
        self._process = subprocess.Popen(
            [
                *(program, "-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", str(windows.rate_hz)),
                f"--period-time={round(1e6 * _BLOCK_S)}",
                *chosen,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            bufsize=0,
            # Ctrl-C must not reach the program; it is terminated when the source is closed.
            start_new_session=True,
        )
        # Also at interpreter exit: a program left running would keep the microphone occupied.
        self._end = weakref.finalize(self, end_process, self._process)
        first = self.block()
        if first is None:
            reason = self._last_message()
            self.close()
            raise SourceError(
                f"{self.name} did not open: {program} returned no samples ({reason}). Expected a connected microphone "
                "that no other program uses: `arecord -l`."
            )
        self._add(first)

    def block(self) -> _Samples | None:
        """Wait for the next samples; None if the program ended or stopped.

        The pipe holds what was not read in time, until it is full and the program reports an overrun.
        """
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], _TIMEOUT_S)[0]:
            return None
        overruns = os.pread(self._messages.fileno(), _MAX_MESSAGES, 0).count(b"overrun")
        is_gap, self._overruns = overruns > self._overruns, overruns
        if is_gap:  # the lost samples came after those in the pipe
            drained = self._odd + os.read(stream.fileno(), _pipe_bytes(stream))
            self._odd = drained[len(drained) // 2 * 2 :]
        content = os.read(stream.fileno(), self._block_bytes)
        if not content:
            return None
        captured_at = time.monotonic() - _pipe_bytes(stream) / 2 / self._rate_hz
        content = self._odd + content
        whole = len(content) // 2 * 2
        self._odd = content[whole:]
        samples = np.frombuffer(content[:whole], "<i2").astype(np.float32) / np.float32(_FULL_SCALE)
        return _Samples(samples, captured_at, is_gap)

    def close(self) -> None:
        """Terminate the program."""
        self._end()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._messages.close()

    def _last_message(self) -> str:
        self._messages.seek(0)
        lines = [line.strip() for line in self._messages.read().decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), f"timeout after {_TIMEOUT_S:.0f} s")


class PortAudioStream(_LiveWindows):
    """Microphone through PortAudio, converted to the rate of the input where the device has another one."""

    def __init__(self, sounddevice: Any, device: str, windows: SoundWindows, is_closed: Callable[[], bool]) -> None:
        """Open the device.

        Args:
            sounddevice: the module.
            device: name or number of the device; empty for the default.
            windows: rate, length and interval of the windows.
            is_closed: returns True when the source ends, also while the device is muted.

        Raises:
            SourceError: the device does not exist, or does not open.
        """
        super().__init__(f"mic:{device}", windows, is_closed)
        self._blocks: queue.Queue[_Samples] = queue.Queue(round(_QUEUED_S / _BLOCK_S))
        self._is_gap = False
        chosen = (int(device) if device.isdecimal() else device) if device else None
        try:
            rate = windows.rate_hz
            try:
                sounddevice.check_input_settings(device=chosen, channels=1, dtype="float32", samplerate=rate)
            except sounddevice.PortAudioError:
                rate = round(sounddevice.query_devices(chosen, "input")["default_samplerate"])
            self._resampler = Resampler(rate, windows.rate_hz)
            self._stream = sounddevice.InputStream(
                samplerate=rate,
                blocksize=round(_BLOCK_S * rate),
                device=chosen,
                channels=1,
                dtype="float32",
                callback=self._receive,
            )
            try:
                self._stream.start()
            except BaseException:
                self._stream.close()
                raise
        except (sounddevice.PortAudioError, ValueError) as error:
            raise SourceError(
                f"{self.name} did not open: {error}. Expected a connected microphone: `python -m sounddevice` lists "
                "them; or use alsa:DEVICE."
            ) from error

    def block(self) -> _Samples | None:
        """Wait for the next samples; None if the device stopped."""
        try:
            block = self._blocks.get(timeout=_TIMEOUT_S)
        except queue.Empty:
            return None
        return block._replace(samples=self._resampler.convert(block.samples))

    def close(self) -> None:
        """Close the device."""
        self._stream.close()

    def _receive(self, block: Any, _frames: int, _time: Any, status: Any) -> None:
        received = _Samples(block[:, 0].copy(), time.monotonic(), self._is_gap or bool(status.input_overflow))
        try:
            self._blocks.put_nowait(received)
            self._is_gap = False
        except queue.Full:
            self._is_gap = True


def open_microphone(device: str, windows: SoundWindows, is_closed: Callable[[], bool]) -> ArecordPipe | PortAudioStream:
    """Open a microphone by PortAudio, or the default one by `arecord` where PortAudio is missing.

    Raises:
        SourceError: the device does not open.
        MissingDependency: neither sounddevice with PortAudio nor `arecord` is installed.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio is missing
        if device or shutil.which("arecord") is None:
            raise MissingDependency(
                f"A microphone needs sounddevice with PortAudio, which cannot be imported ({error}). Install it: "
                "pip install sounddevice, apt install libportaudio2; or use alsa: with arecord of alsa-utils."
            ) from error
        return open_arecord(device, windows, is_closed)
    return PortAudioStream(sounddevice, device, windows, is_closed)


def open_arecord(device: str, windows: SoundWindows, is_closed: Callable[[], bool]) -> ArecordPipe:
    """Open an ALSA device by `arecord`.

    Raises:
        SourceError: the device does not open.
        MissingDependency: `arecord` is not installed.
    """
    program = shutil.which("arecord")
    if program is None:
        raise MissingDependency("alsa: needs arecord, which is not installed. Install it: apt install alsa-utils")
    return ArecordPipe(program, device, windows, is_closed)


def _pipe_bytes(stream: IO[bytes]) -> int:
    """Return the number of bytes that a pipe holds."""
    import fcntl  # both are missing on Windows, as is `arecord`
    import termios

    held = fcntl.ioctl(stream.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(held, sys.byteorder)

"""Microphones by PortAudio, or by a pipe of `arecord`."""

import logging
import os
import queue
import select
import shutil
import subprocess
import tempfile
import time
import weakref
from typing import Any

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
_FULL_SCALE = 32768
_SILENT_S = 5.0
"""Duration of samples that are exactly 0 after which a warning is logged, in seconds."""


class _LiveWindows:
    """Windows of a microphone: the newest `samples` samples, every `hop_s` seconds.

    Windows that contain only zeros are not returned, since a muted or disconnected microphone measures nothing.
    """

    def __init__(self, name: str, windows: SoundWindows) -> None:
        self.name = name
        self.fps: float | None = 1 / windows.hop_s
        self._samples, self._hop = windows.length, windows.hop
        self._silent_windows = round(_SILENT_S / windows.hop_s)
        self._held = np.zeros(0, np.float32)
        self._missing = windows.length
        self._zeros = 0

    def block(self) -> Floats | None:
        """Wait for the next samples, float32 `[n]` at the rate of the input; None if the device failed."""
        raise NotImplementedError

    def read(self) -> tuple[Floats, float] | None:
        """Return the next window and the time of its last sample; None if the device failed."""
        while True:
            while self._missing > 0:
                block = self.block()
                if block is None:
                    return None
                self._held = np.concatenate([self._held, block])
                self._missing -= len(block)
            captured_at = time.monotonic()
            end = len(self._held) + self._missing  # samples beyond it belong to the next window
            window = self._held[end - self._samples : end]
            self._held, self._missing = self._held[end - self._samples :], self._missing + self._hop
            if window.any():
                self._zeros = 0
                return window.copy(), captured_at
            self._zeros += 1
            if self._zeros == self._silent_windows:
                _log.warning("%s returns only zeros: is it muted or disconnected? No answer is given meanwhile.",
                             self.name)  # fmt: skip


class ArecordPipe(_LiveWindows):
    """Microphone through `arecord`, which writes raw PCM of 16 bits to its standard output."""

    def __init__(self, program: str, device: str, windows: SoundWindows) -> None:
        """Start the program and wait for its first samples.

        Args:
            program: path of `arecord`.
            device: ALSA device, such as `plughw:1,0`; empty for the default.
            windows: rate, length and interval of the windows.

        Raises:
            SourceError: the program ended, or returned no samples within ten seconds.
        """
        super().__init__(f"alsa:{device}", windows)
        self._block_bytes = 2 * max(1, round(_BLOCK_S * windows.rate_hz))
        self._odd = b""
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
        self._held, self._missing = first, self._missing - len(first)

    def block(self) -> Floats | None:
        """Wait for the next samples; None if the program ended or stopped."""
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], _TIMEOUT_S)[0]:
            return None
        content = os.read(stream.fileno(), self._block_bytes)
        if not content:
            return None
        content = self._odd + content
        whole = len(content) // 2 * 2
        self._odd = content[whole:]
        return np.frombuffer(content[:whole], "<i2").astype(np.float32) / np.float32(_FULL_SCALE)

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

    def __init__(self, sounddevice: Any, device: str, windows: SoundWindows) -> None:
        """Open the device.

        Args:
            sounddevice: the module.
            device: name or number of the device; empty for the default.
            windows: rate, length and interval of the windows.

        Raises:
            SourceError: the device does not exist, or does not open.
        """
        super().__init__(f"mic:{device}", windows)
        self._blocks: queue.SimpleQueue[Floats] = queue.SimpleQueue()
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
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise SourceError(
                f"{self.name} did not open: {error}. Expected a connected microphone: `python -m sounddevice` lists "
                "them; or use alsa:DEVICE."
            ) from error

    def block(self) -> Floats | None:
        """Wait for the next samples; None if the device stopped."""
        try:
            return self._resampler.convert(self._blocks.get(timeout=_TIMEOUT_S))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Close the device."""
        self._stream.close()

    def _receive(self, block: Any, _frames: int, _time: Any, _status: Any) -> None:
        self._blocks.put(block[:, 0].copy())


def open_microphone(device: str, windows: SoundWindows) -> ArecordPipe | PortAudioStream:
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
        return open_arecord(device, windows)
    return PortAudioStream(sounddevice, device, windows)


def open_arecord(device: str, windows: SoundWindows) -> ArecordPipe:
    """Open an ALSA device by `arecord`.

    Raises:
        SourceError: the device does not open.
        MissingDependency: `arecord` is not installed.
    """
    program = shutil.which("arecord")
    if program is None:
        raise MissingDependency("alsa: needs arecord, which is not installed. Install it: apt install alsa-utils")
    return ArecordPipe(program, device, windows)

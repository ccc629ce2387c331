"""Ribbon-cable (CSI) cameras of a Raspberry Pi: through picamera2, or else the pipe of `rpicam-vid`."""

import importlib
import logging
import os
import select
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from kdedge_runtime.errors import MissingDependency, SourceError
from kdedge_runtime.sources.live_source import Connection
from kdedge_runtime.util.arrays import Pixels

__all__ = ["HEIGHT", "WIDTH", "Picamera", "RpicamPipe", "csi_opener", "frame_bytes", "rgb_of_yuv420"]

_log = logging.getLogger(__name__)

WIDTH, HEIGHT = 1024, 768
"""The shape of most sensors, several times what a classifier sees, and rows that need no padding."""
_FPS = 30.0
_ALIGNMENT_PX = 64
_PATIENCE_S = 10.0
_GOODBYE_S = 2.0
_PROGRAMS = ("rpicam-vid", "libcamera-vid")
"""The same program, before and after it was renamed (Raspberry Pi OS Bullseye has the old name)."""


def csi_opener(number: int) -> Callable[[], Connection]:
    """What opens a CSI camera here.

    Raises:
        MissingDependency: neither picamera2 nor rpicam-vid is there.
    """
    try:
        module = importlib.import_module("picamera2")
    except Exception as error:  # an ImportError, or numpy's ValueError where pip's and apt's builds do not match
        _log.debug("picamera2 is not used: %s", error)
    else:
        return lambda: Picamera(module, number)
    for program in _PROGRAMS:
        if path := shutil.which(program):
            return lambda: RpicamPipe(path, number)
    raise MissingDependency(
        f"csi:{number} needs picamera2 or rpicam-vid, and neither is here. On a Raspberry Pi: `sudo apt install "
        "rpicam-apps`. A USB camera is `--source usb:0`."
    )


class Picamera:
    """A camera through picamera2, dated by its sensor."""

    fps: float | None = _FPS

    def __init__(self, picamera2: Any, number: int) -> None:
        """Open and start it.

        Args:
            picamera2: the module.
            number: of the camera.

        Raises:
            SourceError: there is no such camera, or another program has it.
        """
        self._camera: Any = None
        try:
            self._camera = picamera2.Picamera2(number)
            # picamera2 names the order of bytes in a little-endian word: its BGR888 is an RGB array.
            main = {"size": (WIDTH, HEIGHT), "format": "BGR888"}
            controls = {"FrameRate": _FPS}
            self._camera.configure(self._camera.create_video_configuration(main=main, controls=controls))
            self._camera.start()
        except Exception as error:  # picamera2 raises RuntimeError, IndexError and libcamera's own
            self.close()
            raise SourceError(
                f"csi:{number} did not open ({error}). Expected a connected camera that no other program uses: "
                "`rpicam-hello --list-cameras`."
            ) from error

    def read(self) -> tuple[Pixels, float] | None:
        """The next frame and when its exposure ended; None when there is none."""
        try:
            request = self._camera.capture_request(wait=False).get_result(timeout=_PATIENCE_S)
        except Exception as error:  # a timeout, or whatever the camera died of
            _log.debug("picamera2 gave no frame: %s", error)
            return None
        try:
            metadata = request.get_metadata()
            rgb = np.ascontiguousarray(request.make_array("main"))
        finally:
            request.release()
        return rgb, _monotonic_s(metadata.get("SensorTimestamp"))

    def close(self) -> None:
        """Stop and release the camera."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None


class RpicamPipe:
    """A camera through the pipe of `rpicam-vid`: whole frames of raw YUV 4:2:0 on its standard output."""

    fps: float | None = _FPS

    def __init__(self, program: str, number: int) -> None:
        """Start the program and wait for its first frame.

        Args:
            program: the path of `rpicam-vid`.
            number: of the camera.

        Raises:
            SourceError: it ended, or gave nothing in ten seconds.
        """
        self._frame = bytearray(frame_bytes(WIDTH, HEIGHT))
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        size = ["--width", str(WIDTH), "--height", str(HEIGHT), "--framerate", f"{_FPS:g}"]
        command = [program, "--camera", str(number), "-t", "0", "-n", "-v", "0", "--codec", "yuv420", *size, "--flush"]
        self._process = subprocess.Popen(
            [*command, "-o", "-"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env=os.environ | {"LIBCAMERA_LOG_LEVELS": "*:ERROR"},
            bufsize=0,
            # Ctrl-C is for us: the program is ended when the source is closed.
            start_new_session=True,
        )
        # Also at the end of the interpreter: a program that hangs would keep the camera from everybody else.
        self._end = weakref.finalize(self, _ended, self._process)
        self._first = self._next()
        if self._first is None:
            reason = self._last_message()
            self.close()
            raise SourceError(
                f"csi:{number} did not open: {program} gave no frame ({reason}). Expected a connected camera that no "
                "other program uses: `rpicam-hello --list-cameras`."
            )

    def read(self) -> tuple[Pixels, float] | None:
        """The next frame and when it had come through the pipe; None when the program died or fell silent."""
        first, self._first = self._first, None
        return first or self._next()

    def close(self) -> None:
        """End the program."""
        self._end()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._messages.close()

    def _next(self) -> tuple[Pixels, float] | None:
        stream = self._process.stdout
        assert stream is not None
        view, filled = memoryview(self._frame), 0
        while filled < len(view):
            if not select.select([stream], [], [], _PATIENCE_S)[0]:
                return None
            count = os.readv(stream.fileno(), [view[filled:]])
            if not count:  # a frame that breaks off is none
                return None
            filled += count
        captured_at = time.monotonic()
        return rgb_of_yuv420(self._frame, WIDTH, HEIGHT), captured_at

    def _last_message(self) -> str:
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"it waited for {_PATIENCE_S:.0f} s"


def _ended(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_GOODBYE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def frame_bytes(width: int, height: int) -> int:
    """Size of a YUV 4:2:0 frame as `rpicam-vid` writes it: each row of Y is padded to a multiple of 64 bytes."""
    return _stride(width) * height * 3 // 2


def rgb_of_yuv420(frame: bytes | bytearray, width: int, height: int) -> Pixels:
    """A raw frame of `rpicam-vid --codec yuv420` as uint8 RGB `[height, width, 3]`.

    The program asks libcamera for the colour space of JPEG: full range, BT.601. Chroma rows have half the stride.

    Args:
        frame: the planes Y, U and V, `frame_bytes` long.
        width: in px, even.
        height: in px, even.
    """
    stride = _stride(width)
    luma_bytes, chroma_bytes = stride * height, stride // 2 * (height // 2)
    luma, *chroma = np.split(np.frombuffer(frame, np.uint8), [luma_bytes, luma_bytes + chroma_bytes])
    planes = [Image.frombuffer("L", (width, height), luma, "raw", "L", stride, 1)]
    for samples in chroma:
        plane = Image.frombuffer("L", (width // 2, height // 2), samples, "raw", "L", stride // 2, 1)
        planes.append(plane.resize((width, height), Image.Resampling.BILINEAR))
    return np.asarray(Image.merge("YCbCr", planes).convert("RGB"))


def _stride(width: int) -> int:
    return -(-width // _ALIGNMENT_PX) * _ALIGNMENT_PX


def _monotonic_s(sensor_timestamp_ns: int | None) -> float:
    """A time of the sensor, in ns since the system's start, on the clock of `time.monotonic`."""
    now_s = time.monotonic()
    if sensor_timestamp_ns is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return now_s
    age_s = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - sensor_timestamp_ns) / 1e9
    return now_s - age_s if 0 <= age_s < 60 else now_s

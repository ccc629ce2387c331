"""Ribbon-cable (CSI) cameras of a Raspberry Pi, through picamera2 or else `rpicam-vid`."""

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
from kdedge_runtime.util.process import end_process

__all__ = ["HEIGHT", "WIDTH", "Picamera", "RpicamPipe", "csi_opener", "frame_bytes", "rgb_of_yuv420"]

_log = logging.getLogger(__name__)

WIDTH, HEIGHT = 1024, 768
"""Capture size in pixels: the aspect ratio of most sensors, well above classifier input sizes, without row padding."""
_FPS = 30.0
_ALIGNMENT_PX = 64
_TIMEOUT_S = 10.0
_JOIN_TIMEOUT_S = 2.0
_PROGRAMS = ("rpicam-vid", "libcamera-vid")
"""Current and former name of the program (Raspberry Pi OS Bullseye has the former)."""


def csi_opener(number: int) -> Callable[[], Connection]:
    """Return a function that opens a CSI camera.

    Raises:
        MissingDependency: neither picamera2 nor rpicam-vid is installed.
    """
    try:
        module = importlib.import_module("picamera2")
    except Exception as error:  # ImportError, or numpy's ValueError if pip and apt builds are incompatible
        _log.debug("picamera2 is not used: %s", error)
    else:
        return lambda: Picamera(module, number)
    for program in _PROGRAMS:
        if path := shutil.which(program):
            return lambda: RpicamPipe(path, number)
    raise MissingDependency(
        f"csi:{number} needs picamera2 or rpicam-vid, and neither is installed. On a Raspberry Pi: `sudo apt install "
        "rpicam-apps`. For a USB camera, use `--source usb:0`."
    )


class Picamera:
    """Camera through picamera2, with sensor timestamps."""

    fps: float | None = _FPS

    def __init__(self, picamera2: Any, number: int) -> None:
        """Open and start the camera.

        Args:
            picamera2: the picamera2 module.
            number: camera index.

        Raises:
            SourceError: the camera does not exist or is in use.
        """
        self._camera: Any = None
        try:
            self._camera = picamera2.Picamera2(number)
            # picamera2 names formats by byte order in a little-endian word: BGR888 is an RGB array.
            main = {"size": (WIDTH, HEIGHT), "format": "BGR888"}
            controls = {"FrameRate": _FPS}
            self._camera.configure(self._camera.create_video_configuration(main=main, controls=controls))
            self._camera.start()
        except Exception as error:  # picamera2 raises RuntimeError, IndexError and libcamera exceptions
            self.close()
            raise SourceError(
                f"csi:{number} did not open ({error}). Expected a connected camera that no other program uses: "
                "`rpicam-hello --list-cameras`."
            ) from error

    def read(self) -> tuple[Pixels, float] | None:
        """Return the next frame and the time its exposure ended; None if there is none."""
        try:
            request = self._camera.capture_request(wait=False).get_result(timeout=_TIMEOUT_S)
        except Exception as error:  # a timeout or any camera failure
            _log.debug("picamera2 returned no frame: %s", error)
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
    """Camera through `rpicam-vid`, which writes raw YUV 4:2:0 frames to its standard output."""

    fps: float | None = _FPS

    def __init__(self, program: str, number: int) -> None:
        """Start the program and wait for its first frame.

        Args:
            program: path of `rpicam-vid`.
            number: camera index.

        Raises:
            SourceError: the program ended, or returned no frame within ten seconds.
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
            # Ctrl-C must not reach the program; it is terminated when the source is closed.
            start_new_session=True,
        )
        # Also at interpreter exit: a program left running would keep the camera occupied.
        self._end = weakref.finalize(self, end_process, self._process)
        self._first = self._next()
        if self._first is None:
            reason = self._last_message()
            self.close()
            raise SourceError(
                f"csi:{number} did not open: {program} returned no frame ({reason}). Expected a connected camera "
                "that no other program uses: `rpicam-hello --list-cameras`."
            )

    def read(self) -> tuple[Pixels, float] | None:
        """Return the next frame and the time it was received; None if the program ended or timed out."""
        first, self._first = self._first, None
        return first or self._next()

    def close(self) -> None:
        """Terminate the program."""
        self._end()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._messages.close()

    def _next(self) -> tuple[Pixels, float] | None:
        stream = self._process.stdout
        assert stream is not None
        view, filled = memoryview(self._frame), 0
        while filled < len(view):
            if not select.select([stream], [], [], _TIMEOUT_S)[0]:
                return None
            count = os.readv(stream.fileno(), [view[filled:]])
            if not count:  # incomplete frames are discarded
                return None
            filled += count
        captured_at = time.monotonic()
        return rgb_of_yuv420(self._frame, WIDTH, HEIGHT), captured_at

    def _last_message(self) -> str:
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").split("\n")
        messages = [line.strip() for line in lines if line.strip()]
        return messages[-1] if messages else f"timeout after {_TIMEOUT_S:.0f} s"


def frame_bytes(width: int, height: int) -> int:
    """Return the size of a YUV 4:2:0 frame of `rpicam-vid` in bytes. Rows of Y are padded to a multiple of 64 bytes."""
    return _stride(width) * height * 3 // 2


def rgb_of_yuv420(frame: bytes | bytearray, width: int, height: int) -> Pixels:
    """Convert a raw frame of `rpicam-vid --codec yuv420` to uint8 RGB `[height, width, 3]`.

    The color space is that of JPEG: full range, BT.601. Chroma rows have half the stride.

    Args:
        frame: Y, U and V planes, `frame_bytes` long.
        width: width in pixels, even.
        height: height in pixels, even.
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
    """Convert a sensor timestamp in ns since boot to the clock of `time.monotonic`, in seconds."""
    now_s = time.monotonic()
    if sensor_timestamp_ns is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return now_s
    age_s = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - sensor_timestamp_ns) / 1e9
    return now_s - age_s if 0 <= age_s < 60 else now_s

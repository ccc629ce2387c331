"""Sound files for tests of readers and sources."""

import struct
from pathlib import Path

import numpy as np
import soundfile

from kdedge_runtime.util.arrays import Floats


def tone(seconds: float, rate_hz: int, hertz: float = 440.0) -> Floats:
    """Synthesize a sine of amplitude 0.5."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def write_lying_wav(path: Path, announced: int, present: int, rate_hz: int = 8_000) -> Path:
    """Write a wav of 16 bits whose header announces another number of samples than there are."""
    content = np.zeros(present, "<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 2 * announced)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks) + len(content)) + b"WAVE" + chunks + content)
    return path


def write_unfinished_wav(path: Path, sound: Floats, rate_hz: int) -> Path:
    """Write a wav whose header has no length, as programs do that stream."""
    soundfile.write(path, sound, rate_hz, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", 0xFFFF_FFFF)
    path.write_bytes(content)
    return path


def noise(samples: int, seed: int = 0) -> Floats:
    """Draw white noise, PCM `[samples]`."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)

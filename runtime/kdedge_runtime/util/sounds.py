"""Sound file decoding to mono PCM at a requested rate, shared by training, validation and the device."""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.optional_package import needs_package

__all__ = [
    "MIN_SHARE",
    "SOUND_SUFFIXES",
    "SoundInfo",
    "Resampler",
    "is_sound_file",
    "require_measured",
    "read_blocks",
    "read_sound",
    "sound_info",
]

SOUND_SUFFIXES = (".aif", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")
"""Lower-case suffixes of sound files."""
MIN_SHARE = 0.1
"""Shortest sound as a share of the window; the rest would be padding that nobody measured."""
_BLOCK_S = 10.0
"""Length of the blocks in which a file is decoded, in seconds."""
_MARGIN_S = 0.05
"""Length of the sound around a part that the resampler also receives, so that its filter is filled."""
_UNKNOWN_BYTES = 0x7FFF_0000
"""Smallest length in a header that stands for an unknown one, as written by programs that stream."""
_MAX_HEADER_BYTES = 64
"""Bytes of a chunk that are read; its announced length can be anything."""
_OGG_PAGE_BYTES = 65_307
"""Longest page of an Ogg file in bytes (RFC 3533)."""
_OGG_END = 4
"""Flag of the last page of an Ogg stream."""


@dataclass(frozen=True)
class SoundInfo:
    """Length and format of a sound file, from its header."""

    rate_hz: int
    frames: int
    """Samples per channel at this rate."""
    channels: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate_hz


class Resampler:
    """Conversion of a sound to another rate in blocks of any size; without one if the rates are equal."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._stream: Any = None
        if from_hz != to_hz:
            with needs_package(f"Conversion from {from_hz:,} to {to_hz:,} Hz", "soxr", "pip install soxr"):
                import soxr
            self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32")

    def convert(self, block: Floats, *, last: bool = False) -> Floats:
        """Convert the next block; a filter delays samples until later blocks, or the last one."""
        if self._stream is None:
            return block
        return np.asarray(self._stream.resample_chunk(block, last=last), dtype=np.float32)


def is_sound_file(path: Path) -> bool:
    """Return True if a file has a sound suffix and is not hidden."""
    return path.suffix.lower() in SOUND_SUFFIXES and not path.name.startswith(".")


def require_measured(sound: Floats, window: int, name: str = "A sound") -> None:
    """Raise if a sound is silent, or too short for a window.

    Args:
        sound: PCM `[S]`.
        window: length of the window in samples.
        name: name of the sound in messages.

    Raises:
        UnreadableSample: all samples are 0, or there are fewer than a tenth of the window.
    """
    if not sound.any():
        raise UnreadableSample(
            f"{name} has only zeros, so nothing was measured. Record it again or remove it.", "silent"
        )
    if len(sound) < MIN_SHARE * window:
        raise UnreadableSample(
            f"{name} has {len(sound):,} samples, but the window {window:,}. Expected at least {MIN_SHARE:.0%} of it: "
            "record a longer one, or train with a shorter --window.",
            "too short",
        )


def sound_info(path: str | Path) -> SoundInfo:
    """Read the header of a sound file.

    Raises:
        UnreadableSample: the file does not exist, is not a sound, is empty, or ends before the length in its header.
        MissingDependency: soundfile is not installed.
    """
    with _opened(path) as file:
        return SoundInfo(file.samplerate, file.frames, file.channels)


def read_sound(path: str | Path, rate_hz: int | None = None, start: int = 0, count: int | None = None) -> Floats:
    """Decode a part of a sound file as mono PCM, float32 `[S]`; channels are averaged.

    Args:
        path: file of a format that libsndfile reads.
        rate_hz: rate of the result; None keeps that of the file.
        start: first sample of the part, at the rate of the result.
        count: number of samples at this rate; None reads to the end. The result is shorter if the file ends before.

    Raises:
        UnreadableSample: the file is not readable (see `sound_info`), or a sample is not finite.
        MissingDependency: soundfile, or soxr for another rate, is not installed.
    """
    with _opened(path) as file:
        rate = rate_hz or file.samplerate
        ratio = file.samplerate / rate
        margin = 0 if file.samplerate == rate else round(_MARGIN_S * rate)
        step = rate // math.gcd(rate, file.samplerate)  # samples at these multiples lie on samples of the file
        first = max(0, start - margin) // step * step
        skipped = round(first * ratio)
        wanted = left = max(0, file.frames - skipped)
        if count is not None:
            wanted = min(left, round((start + count + margin - first) * ratio))
        file.seek(file.frames - left)
        values = _mono(file.read(wanted, dtype="float32", always_2d=True), path)
        if len(values) < wanted:
            raise _truncated(path, file.frames - left + len(values), file.frames)
        converted = Resampler(file.samplerate, rate).convert(values, last=True)
    return converted[start - first :][:count]


def read_blocks(path: str | Path, rate_hz: int) -> Iterator[Floats]:
    """Decode a sound file block by block as mono PCM at a rate, float32 `[n]`; memory does not grow with its length.

    Raises:
        UnreadableSample, MissingDependency: see `read_sound`.
    """
    with _opened(path) as file:
        resampler, left = Resampler(file.samplerate, rate_hz), file.frames
        while left > 0:
            block = file.read(min(left, round(_BLOCK_S * file.samplerate)), dtype="float32", always_2d=True)
            if not len(block):
                raise _truncated(path, file.frames - left, file.frames)
            left -= len(block)
            yield resampler.convert(_mono(block, path), last=left <= 0)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    with needs_package("Reading of sound files", "soundfile", "pip install soundfile soxr"):
        import soundfile
    _check_length(Path(path))
    try:
        with soundfile.SoundFile(str(path)) as file:
            if file.frames <= 0:
                raise UnreadableSample(f"{path} has no samples. Record it again or remove it.", "empty")
            yield file
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UnreadableSample(
            f"{path} is not a readable sound ({error}). Expected wav, flac, ogg or another format of libsndfile.",
            "not a sound",
        ) from error


def _check_length(path: Path) -> None:
    """Raise if a file is missing or empty, or ends before the length in its header."""
    try:
        size = path.stat().st_size
        if not size:
            raise UnreadableSample(f"{path} is empty. Record it again or remove it.", "empty")
        with path.open("rb") as file:
            header = file.read(12)
            if header[:4] in (b"RIFF", b"RF64") and header[8:] == b"WAVE":
                _check_riff(path, file, size)
            elif header[:4] == b"FORM" and header[8:12] in (b"AIFF", b"AIFC"):
                _check_bytes(path, size - 8, struct.unpack(">I", header[4:8])[0])
            elif header[:4] == b".snd" and len(header) == 12:
                start, length = struct.unpack(">II", header[4:])
                _check_bytes(path, size - start, length)
            elif header[:4] == b"OggS":
                file.seek(max(0, size - _OGG_PAGE_BYTES))
                last = file.read().rpartition(b"OggS")[2]
                if len(last) < 2 or not last[1] & _OGG_END:
                    raise UnreadableSample(
                        f"{path} is truncated: it has no last page. Copy it again or remove it.", "truncated"
                    )
    except OSError as error:
        raise UnreadableSample(f"{path} cannot be opened: {error.strerror or error}.", "unreadable") from error


def _check_riff(path: Path, file: BinaryIO, size: int) -> None:
    """Raise if the data of a wav file are shorter than its header announces; `file` is behind the first 12 bytes."""
    align, long_length = 1, None
    while len(chunk := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        start = file.tell()
        if name == b"data":
            announced = length if length < _UNKNOWN_BYTES else long_length
            if announced is not None and size - start < announced:
                raise _truncated(path, (size - start) // align, announced // align)
            return
        content = file.read(min(length, _MAX_HEADER_BYTES))
        if name == b"fmt " and len(content) >= 14:
            align = max(1, struct.unpack_from("<H", content, 12)[0])
        elif name == b"ds64" and len(content) >= 16:
            long_length = struct.unpack_from("<Q", content, 8)[0]
        file.seek(start + length + length % 2)


def _check_bytes(path: Path, present: int, announced: int) -> None:
    if present < announced < _UNKNOWN_BYTES:
        raise _truncated(path, present, announced, "bytes")


def _mono(block: NDArray[np.float32], path: str | Path) -> Floats:
    if not np.isfinite(block).all():
        raise UnreadableSample(
            f"{path} has samples that are not finite numbers (NaN or infinity). Record it again or remove it.",
            "not finite",
        )
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _truncated(path: str | Path, present: int, announced: int, unit: str = "samples") -> UnreadableSample:
    return UnreadableSample(
        f"{path} is truncated: it has {present:,} {unit}, but its header announces {announced:,}. Copy it again or "
        "remove it.",
        "truncated",
    )

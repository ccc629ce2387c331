"""Write a fragmented MP4 (ISO/IEC 14496-12, section 8.8) from short complete files. It stays playable when truncated.

OpenCV does not expose FFmpeg's `movflags`, and its files are unreadable until the index is written at the end.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["FragmentWriter"]

_SYNC, _DELTA = 0x02000000, 0x01010000
"""Sample flags: sync sample without dependencies; dependent non-sync sample."""
_DEFAULT_BASE_IS_MOOF = 0x020000
_OFFSET_DURATION_SIZE_FLAGS = 0x000701
_TABLES = (b"stts", b"stsc", b"stco", b"stsz")
_CONTAINERS = (b"trak", b"mdia", b"minf", b"stbl")
_DURATION_AT = {b"mvhd": (16, 24), b"mdhd": (16, 24), b"tkhd": (20, 28)}
"""Offset of the duration in a box's payload, for versions 0 and 1."""


@dataclass(frozen=True)
class _Film:
    """Single track of a complete MP4."""

    moov: bytes
    timescale: int
    durations: list[int]
    sizes: list[int]
    sync: frozenset[int]
    """Numbers of the sync samples, starting at 1."""
    data: bytes


class FragmentWriter:
    """Appends complete single-track MP4 files with identical encoding to one file."""

    def __init__(self, file: BinaryIO) -> None:
        """Create a writer.

        Args:
            file: empty file, opened unbuffered for writing.
        """
        self._file = file
        self._sequence = 0
        self._timescale = 0
        self._ticks = 0
        self._duration_at = 0

    def append(self, film: bytes) -> int:
        """Append the frames of an MP4 file as one fragment.

        Args:
            film: content of a complete MP4 file.

        Returns:
            The number of frames.

        Raises:
            ValueError: the content is not a complete MP4 file with one video track.
            OSError: the fragment cannot be written. The file is truncated to the previous fragment.
        """
        try:
            track = _read(film)
        except (KeyError, IndexError, struct.error) as error:
            raise ValueError("its index is damaged") from error
        end = self._file.tell()
        head = b"" if self._sequence else _initialization(track)
        fragment = _fragment(track, self._sequence + 1, self._ticks)
        try:
            # A partial moof box makes the file unreadable; a partial free box is ignored.
            self._write(head + fragment.replace(b"moof", b"free", 1))
            self._write_at(end + len(head) + 4, b"moof")
        except OSError:
            self._file.truncate(end)
            self._file.seek(end)
            raise
        if head:
            self._timescale = track.timescale
            self._duration_at = head.index(b"mehd") + 8
        self._sequence += 1
        self._ticks += sum(track.durations)
        self._write_at(self._duration_at, struct.pack(">Q", self._ticks * _MOVIE_TIMESCALE // self._timescale))
        return len(track.sizes)

    def _write_at(self, place: int, content: bytes) -> None:
        after = self._file.tell()
        self._file.seek(place)
        self._write(content)
        self._file.seek(after)

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:  # a write to a nearly full disk may be short
            view = view[self._file.write(view) :]


_MOVIE_TIMESCALE = 1000


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and payload of each box in a payload."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        end = at + size if size else len(data)
        if (size and size < head) or end > len(data):
            raise ValueError("a box is truncated")
        yield kind, data[at + head : end]
        at = end


def _box(kind: bytes, *payload: bytes) -> bytes:
    content = b"".join(payload)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, flags: int, *payload: bytes, version: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *payload)


def _read(film: bytes) -> _Film:
    top = dict(_boxes(film))
    if not {b"moov", b"mdat"} <= top.keys():
        raise ValueError("it has no index")
    tracks = [payload for kind, payload in _boxes(top[b"moov"]) if kind == b"trak"]
    if len(tracks) != 1:
        raise ValueError(f"it has {len(tracks)} tracks")
    media = dict(_boxes(dict(_boxes(tracks[0]))[b"mdia"]))
    tables = dict(_boxes(dict(_boxes(media[b"minf"]))[b"stbl"]))
    (timescale,) = struct.unpack_from(">I", media[b"mdhd"], 20 if media[b"mdhd"][0] else 12)
    each, count = struct.unpack_from(">II", tables[b"stsz"], 4)
    sizes = [each] * count if each else list(struct.unpack_from(f">{count}I", tables[b"stsz"], 12))
    if not count or sum(sizes) != len(top[b"mdat"]):
        raise ValueError(
            f"its index has {count} frames of {sum(sizes)} bytes, but it contains {len(top[b'mdat'])} bytes"
        )
    (runs,) = struct.unpack_from(">I", tables[b"stts"], 4)
    times = struct.unpack_from(f">{2 * runs}I", tables[b"stts"], 8)
    durations = [ticks for many, ticks in zip(times[::2], times[1::2], strict=True) for _ in range(many)]
    sync: Iterable[int] = range(1, count + 1)
    if b"stss" in tables:
        (many,) = struct.unpack_from(">I", tables[b"stss"], 4)
        sync = struct.unpack_from(f">{many}I", tables[b"stss"], 8)
    return _Film(top[b"moov"], timescale, durations, sizes, frozenset(sync), top[b"mdat"])


def _initialization(film: _Film) -> bytes:
    """Return the initialization boxes: codec settings and empty tables."""
    extends = _box(
        b"mvex",
        _full(b"mehd", 0, struct.pack(">Q", 0), version=1),  # 32 bits of milliseconds last only 49 days
        _full(b"trex", 0, struct.pack(">IIIII", 1, 1, 0, 0, 0)),
    )
    kind = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso5iso6mp41")
    return kind + _box(b"moov", _emptied(film.moov), extends)


def _emptied(payload: bytes) -> bytes:
    parts = []
    for kind, content in _boxes(payload):
        if kind in _CONTAINERS:
            parts.append(_box(kind, _emptied(content)))
        elif kind in _TABLES:
            parts.append(_full(kind, 0, bytes(8 if kind == b"stsz" else 4)))
        elif kind in _DURATION_AT:
            long = bool(content[0])
            at, width = _DURATION_AT[kind][long], 8 if long else 4
            content = content[:at] + bytes(width) + content[at + width :]
            if kind == b"mvhd":  # mehd uses this timescale
                content = content[: at - 4] + struct.pack(">I", _MOVIE_TIMESCALE) + content[at:]
            parts.append(_box(kind, content))
        elif kind not in (b"stss", b"edts", b"udta"):
            parts.append(_box(kind, content))
    return b"".join(parts)


def _fragment(film: _Film, sequence: int, ticks: int) -> bytes:
    entries = b"".join(
        struct.pack(">III", duration, size, _SYNC if number in film.sync else _DELTA)
        for number, (duration, size) in enumerate(zip(film.durations, film.sizes, strict=True), start=1)
    )

    def index(offset: int) -> bytes:
        return _box(
            b"moof",
            _full(b"mfhd", 0, struct.pack(">I", sequence)),
            _box(
                b"traf",
                _full(b"tfhd", _DEFAULT_BASE_IS_MOOF, struct.pack(">I", 1)),
                _full(b"tfdt", 0, struct.pack(">Q", ticks), version=1),
                _full(b"trun", _OFFSET_DURATION_SIZE_FLAGS, struct.pack(">Ii", len(film.sizes), offset), entries),
            ),
        )

    return index(len(index(0)) + 8) + _box(b"mdat", film.data)

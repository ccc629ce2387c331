"""Parser for `--source` values."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.util.file_hint import file_hint
from kdedge_runtime.util.images import is_image_file

__all__ = ["GRAMMAR", "VIDEO_SUFFIXES", "SourceSpec", "parse_source"]

GRAMMAR = """a USB camera (0, usb:0, /dev/video0), a ribbon-cable camera (csi:0), a stream (rtsp://…, http://…), \
a file, a folder or a quoted pattern of images ('photos/*.jpg'), or synthetic:[CLASS]"""

Kind = Literal["usb", "csi", "stream", "video", "images", "synthetic"]

_PROTOCOLS = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ogv", ".ts", ".webm", ".wmv")
_WORDS = ("usb:0", "csi:0", "synthetic:", "rtsp://", "http://", "https://", "tcp://", "udp://")
_PATTERN = "*?["


@dataclass(frozen=True)
class SourceSpec:
    """Parsed `--source` value."""

    kind: Kind
    address: str
    """Camera index or device path, URL, file path, or class of the synthetic camera (empty for all)."""
    files: tuple[Path, ...] = ()
    """Files matched by a pattern."""


def parse_source(text: str) -> SourceSpec:
    """Parse a `--source` value.

    A video file behind `http://` is a video; all other URLs are live streams.

    Raises:
        UsageError: the value is invalid. The message contains the grammar and the closest match.
        SourceError: the file does not exist.
    """
    scheme, colon, rest = text.partition(":")
    if text.isdecimal() or text.startswith("/dev/video"):
        return SourceSpec("usb", text)
    if colon and scheme in ("usb", "csi"):
        if not rest.isdecimal():
            raise UsageError(f"--source {text} has no camera number. Expected {scheme}:0, {scheme}:1, …")
        return SourceSpec("usb" if scheme == "usb" else "csi", rest)
    if colon and scheme == "synthetic":
        return SourceSpec("synthetic", rest)
    if scheme in _PROTOCOLS and rest.startswith("//"):
        return _address(text)
    return _path(text)


def _address(url: str) -> SourceSpec:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise UsageError(
            f"--source is not a valid stream URL ({error}). Expected one like rtsp://HOST/PATH."
        ) from error
    if not host and parts.scheme not in ("udp", "rtp"):  # these two may listen on all addresses: udp://:5000
        raise UsageError(f"--source {url} is not a valid stream URL: the host is missing. Expected rtsp://HOST/PATH.")
    recorded = parts.scheme in ("http", "https") and Path(parts.path).suffix.lower() in VIDEO_SUFFIXES
    return SourceSpec("video" if recorded else "stream", url)


def _path(text: str) -> SourceSpec:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # e.g. ~nobody/film.mp4
        raise UsageError(
            f"--source {text} begins with a home folder that does not exist. Use the full path."
        ) from error
    if path.exists():
        return SourceSpec("images" if path.is_dir() or is_image_file(path) else "video", str(path))
    if any(character in text for character in _PATTERN):
        return _pattern(path, text)
    near = _nearest(text, _WORDS)
    scheme, colon, _ = text.partition(":")
    if near or "://" in text:
        # Compare only the scheme: "htp://camera/video" as a whole is far from "http://".
        near = near or _nearest(f"{scheme}://", _WORDS)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"--source {text} is not a known source.{hint} Expected {GRAMMAR}.")
    if colon and (
        near := _nearest(f"{scheme}:", [f"{word.partition(':')[0]}:" for word in _WORDS if "//" not in word])
    ):
        raise UsageError(f"--source {text} is not a known source. Did you mean {near[0]}? Expected {GRAMMAR}.")
    raise SourceError(f"The file or folder {path} does not exist.{file_hint(path)} Expected {GRAMMAR}.")


def _pattern(path: Path, text: str) -> SourceSpec:
    anchor = Path(path.anchor) if path.anchor else Path()
    pattern = str(path.relative_to(path.anchor)) if path.anchor else str(path)
    try:
        found = sorted(item for item in anchor.glob(pattern) if item.is_file())
    except (ValueError, NotImplementedError) as error:  # invalid pattern
        raise UsageError(f"--source {text} is not a valid file name pattern ({error}). Expected {GRAMMAR}.") from error
    images = tuple(item for item in found if is_image_file(item))
    if images:
        return SourceSpec("images", text, images)
    if len(found) == 1:
        return SourceSpec("video", str(found[0]))
    if found:
        raise UsageError(f"--source {text} matches {len(found)} files that are not images. Name a single video.")
    raise SourceError(f"No file matches --source {text}. Expected {GRAMMAR}.")


def _nearest(text: str, words: Sequence[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(text, words, n=1, cutoff=0.7)

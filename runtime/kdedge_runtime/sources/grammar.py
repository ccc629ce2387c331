"""What may stand after `--source`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.util.images import is_picture

__all__ = ["GRAMMAR", "Place", "parse_source"]

GRAMMAR = """a USB camera (0, usb:0, /dev/video0), a ribbon-cable camera (csi:0), a stream (rtsp://…, http://…), \
a file, a folder or a quoted pattern of pictures ('photos/*.jpg'), or synthetic:[CLASS]"""

Kind = Literal["usb", "csi", "stream", "video", "pictures", "synthetic"]

_PROTOCOLS = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
_VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ogv", ".ts", ".webm", ".wmv")
_WORDS = ("usb:0", "csi:0", "synthetic:", "rtsp://", "http://", "https://", "tcp://", "udp://")
_PATTERN = "*?["


@dataclass(frozen=True)
class Place:
    """A source as it was named."""

    kind: Kind
    address: str
    """A camera's number or device, a URL, a path, or the class of synthetic scenes (empty for all)."""
    files: tuple[Path, ...] = ()
    """What a pattern stood for."""


def parse_source(text: str) -> Place:
    """Read what a user typed after `--source`.

    A recording behind `http://` is a video; the other addresses with `://` are live.

    Raises:
        UsageError: it is not in the grammar; the message tells the grammar and what comes nearest.
        SourceError: it names a file that is not there.
    """
    scheme, colon, rest = text.partition(":")
    if text.isdecimal() or text.startswith("/dev/video"):
        return Place("usb", text)
    if colon and scheme in ("usb", "csi"):
        if not rest.isdecimal():
            raise UsageError(f"--source {text} has no camera number. Expected {scheme}:0, {scheme}:1, …")
        return Place("usb" if scheme == "usb" else "csi", rest)
    if colon and scheme == "synthetic":
        return Place("synthetic", rest)
    if scheme in _PROTOCOLS and rest.startswith("//"):
        return _address(text)
    return _path(text)


def _address(url: str) -> Place:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise UsageError(
            f"--source is no address of a stream ({error}). Expected one like rtsp://HOST/PATH."
        ) from error
    if not host and parts.scheme not in ("udp", "rtp"):  # those two may listen on all addresses: udp://:5000
        raise UsageError(f"--source {url} is no address of a stream: it names no host. Expected rtsp://HOST/PATH.")
    recorded = parts.scheme in ("http", "https") and Path(parts.path).suffix.lower() in _VIDEO_SUFFIXES
    return Place("video" if recorded else "stream", url)


def _path(text: str) -> Place:
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:  # ~nobody/film.mp4
        raise UsageError(
            f"--source {text} begins with a home folder that is not there. Name the whole path."
        ) from error
    if path.exists():
        return Place("pictures" if path.is_dir() or is_picture(path) else "video", str(path))
    if any(character in text for character in _PATTERN):
        return _pattern(path, text)
    near = _nearest(text, _WORDS)
    scheme, colon, _ = text.partition(":")
    if near or "://" in text:
        # Only the part before the address can be nearest: "htp://camera/video" is far from "http://" as a whole.
        near = near or _nearest(f"{scheme}://", _WORDS)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"--source {text} is none that kdedge knows.{hint} Expected {GRAMMAR}.")
    if colon and (near := _nearest(f"{scheme}:", ("usb:", "csi:", "synthetic:"))):
        raise UsageError(f"--source {text} is none that kdedge knows. Did you mean {near[0]}? Expected {GRAMMAR}.")
    raise SourceError(f"There is no file or folder {path}.{_nearest_file(path)} Expected {GRAMMAR}.")


def _pattern(path: Path, text: str) -> Place:
    anchor = Path(path.anchor) if path.anchor else Path()
    pattern = str(path.relative_to(path.anchor)) if path.anchor else str(path)
    try:
        found = sorted(item for item in anchor.glob(pattern) if item.is_file())
    except (ValueError, NotImplementedError) as error:  # an ill-formed pattern
        raise UsageError(f"--source {text} is no pattern of file names ({error}). Expected {GRAMMAR}.") from error
    pictures = tuple(item for item in found if is_picture(item))
    if pictures:
        return Place("pictures", text, pictures)
    if len(found) == 1:
        return Place("video", str(found[0]))
    if found:
        raise UsageError(f"--source {text} stands for {len(found)} files that are no pictures. Name one video.")
    raise SourceError(f"No file matches --source {text}. Expected {GRAMMAR}.")


def _nearest_file(path: Path) -> str:
    try:
        names = [item.name for item in path.parent.iterdir()]
    except OSError:
        return ""
    near = _nearest(path.name, names)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def _nearest(text: str, words: Sequence[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(text, words, n=1, cutoff=0.7)

"""Where frames come from: pictures, videos, cameras, streams and a synthetic camera, all named by one `--source`."""

import threading
from pathlib import Path
from typing import Literal

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.pictures import is_picture
from kdedge_runtime.sources.camera import CameraSource
from kdedge_runtime.sources.frame import Frame, Source
from kdedge_runtime.sources.latest import LatestFrames
from kdedge_runtime.sources.picture import PictureSource
from kdedge_runtime.sources.video import VideoSource

__all__ = ["Frame", "FramePolicy", "Source", "open_source"]

FramePolicy = Literal["all", "latest"]


def open_source(uri: str, frames: FramePolicy | None = None, stop: threading.Event | None = None) -> Source:
    """Make the source that a user named; what it needs is opened when it is entered.

    | `uri`                         | source                                               |
    |-------------------------------|------------------------------------------------------|
    | `0`, `1`, …, `/dev/video0`    | a camera                                             |
    | anything with `://`           | a network stream                                     |
    | `synthetic:`, `synthetic:NAME`| drawn scenes of all classes, or of one               |
    | a folder or a picture file    | pictures                                             |
    | any other file                | a video                                              |

    Args:
        uri: what to read.
        frames: `all` gives every frame in order, `latest` only the newest, at the source's own rate; None is
            `latest` for live sources and `all` for the rest.
        stop: ends a wait for the next live frame when set.

    Raises:
        SourceError: there is no such file.
        UsageError: `latest` was asked of a source that has no rate.
    """
    source = _named(uri)
    policy = frames or ("latest" if source.live else "all")
    if policy == "all":
        return source
    if isinstance(source, PictureSource):
        raise UsageError(
            "Pictures stand still, so there is no latest one. Use --frames all (the default for pictures), or a "
            "camera, stream or video."
        )
    return LatestFrames(source, stop)


def _named(uri: str) -> Source:
    scheme, colon, rest = uri.partition(":")
    if colon and scheme == "synthetic":
        from kdedge_runtime.sources.synthetic import SyntheticSource

        return SyntheticSource(rest or None)
    if uri.isdecimal():
        return CameraSource(int(uri))
    if "://" in uri or uri.startswith("/dev/video"):
        return CameraSource(uri)
    path = Path(uri).expanduser()
    if not path.exists():
        raise SourceError(
            f"There is no file or folder {path}. Expected a picture, a folder, a video, a camera number (0), "
            "a URL (rtsp://…) or synthetic:"
        )
    return PictureSource(path) if path.is_dir() or is_picture(path) else VideoSource(path)

"""Where frames come from: pictures, videos, cameras, streams and a synthetic camera, all named by one `--source`."""

import threading
from functools import partial
from pathlib import Path
from typing import Literal

from kdedge_runtime.errors import UsageError
from kdedge_runtime.sources.camera import open_camera, open_stream, without_password
from kdedge_runtime.sources.grammar import GRAMMAR, Place, parse_source
from kdedge_runtime.sources.image_source import PictureSource
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.live_source import LiveSource
from kdedge_runtime.sources.looped import Looped
from kdedge_runtime.sources.source import Frame, Source, Truth
from kdedge_runtime.sources.video_source import VideoSource

__all__ = ["GRAMMAR", "Frame", "FramePolicy", "Source", "Truth", "open_source"]

FramePolicy = Literal["all", "latest"]


def open_source(
    uri: str, frames: FramePolicy | None = None, stop: threading.Event | None = None, *, loop: bool = False
) -> Source:
    """Make the source that a user named; what it needs is opened when it is entered.

    | `uri`                                  | source                                       |
    |----------------------------------------|----------------------------------------------|
    | `0`, `usb:0`, `/dev/video0`            | a USB or built-in camera                     |
    | `csi:0`                                | a ribbon-cable camera of a Raspberry Pi      |
    | `rtsp://…`, `http://…`, `tcp://…`, …   | a network stream                             |
    | a folder, a picture, `'photos/*.jpg'`  | pictures                                     |
    | any other file, `http://…/film.mp4`    | a video                                      |
    | `synthetic:`, `synthetic:NAME`         | drawn scenes of all classes, or of one       |

    Args:
        uri: what to read.
        frames: `all` gives every frame in order, `latest` only the newest, at the source's own rate; None is
            `latest` for live sources and `all` for the rest.
        stop: ends waits for live frames when set.
        loop: begin again at the end of a file or folder.

    Raises:
        SourceError: there is no such file.
        UsageError: the address is none, or the source has no rate for `latest` or no end for `loop`.
        MissingDependency: there is no program here that reads a ribbon-cable camera.
    """
    place = parse_source(uri)
    source = _made(place, stop)
    if loop:
        if source.live:
            raise UsageError(f"--loop is for files and folders: {source.name} has no end.")
        source = Looped(source)
    policy = frames or ("latest" if source.live else "all")
    if policy == "all":
        return source
    if place.kind == "pictures":
        raise UsageError(
            "Pictures stand still, so there is no latest one. Use --frames all (the default for pictures), or a "
            "camera, stream or video."
        )
    return LatestFrames(source, stop)


def _made(place: Place, stop: threading.Event | None) -> Source:
    if place.kind == "usb":
        return LiveSource(f"Camera {place.address}", "camera", partial(open_camera, place.address), stop)
    if place.kind == "csi":
        from kdedge_runtime.sources.csi import csi_opener

        return LiveSource(f"Camera csi:{place.address}", "csi", csi_opener(int(place.address)), stop)
    if place.kind == "stream":
        name = f"The stream {without_password(place.address)}"
        return LiveSource(name, "stream", partial(open_stream, place.address), stop)
    if place.kind == "synthetic":
        from kdedge_runtime.sources.synthetic import SyntheticSource

        return SyntheticSource(place.address or None)
    if place.kind == "pictures":
        return PictureSource(Path(place.address), place.files)
    return VideoSource(place.address)

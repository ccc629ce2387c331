"""Frame sources: images, videos, cameras, streams and a synthetic camera, selected by `--source`."""

import threading
from functools import partial
from pathlib import Path
from typing import Literal

from kdedge_runtime.errors import UsageError
from kdedge_runtime.sources.camera import open_camera, open_stream, without_password
from kdedge_runtime.sources.grammar import GRAMMAR, SourceSpec, parse_source
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.live_source import LiveSource
from kdedge_runtime.sources.looped import LoopedSource
from kdedge_runtime.sources.source import Frame, GroundTruth, Source
from kdedge_runtime.sources.video_source import VideoSource

__all__ = ["GRAMMAR", "Frame", "FramePolicy", "Source", "GroundTruth", "open_source"]

FramePolicy = Literal["all", "latest"]


def open_source(
    uri: str, frames: FramePolicy | None = None, stop: threading.Event | None = None, *, loop: bool = False
) -> Source:
    """Create the source for a `--source` value. Devices and files are opened on entering it.

    | `uri`                                  | source                                       |
    |----------------------------------------|----------------------------------------------|
    | `0`, `usb:0`, `/dev/video0`            | USB or built-in camera                       |
    | `csi:0`                                | ribbon-cable camera of a Raspberry Pi        |
    | `rtsp://…`, `http://…`, `tcp://…`, …   | network stream                               |
    | a folder, an image, `'photos/*.jpg'`   | images                                       |
    | any other file, `http://…/film.mp4`    | video                                        |
    | `synthetic:`, `synthetic:NAME`         | drawn objects of all classes, or of one      |

    Args:
        uri: source to read.
        frames: `all` returns every frame in order, `latest` only the newest one in real time. None is `latest` for live
        sources and `all` otherwise.
        stop: event that ends waits for live frames.
        loop: True restarts at the end of a file or folder.

    Raises:
        SourceError: the file does not exist.
        UsageError: the value is invalid, or the source has no frame rate for `latest` or no end for `loop`.
        MissingDependency: no program for ribbon-cable cameras is installed.
    """
    place = parse_source(uri)
    source = _create(place, stop)
    if loop:
        if source.live:
            raise UsageError(f"--loop needs a file or folder: {source.name} has no end.")
        source = LoopedSource(source)
    policy = frames or ("latest" if source.live else "all")
    if policy == "all":
        return source
    if place.kind == "images":
        raise UsageError(
            "Images have no frame rate, so --frames latest does not apply. Use --frames all (the default for "
            "images), or a camera, stream or video."
        )
    return LatestFrames(source, stop)


def _create(place: SourceSpec, stop: threading.Event | None) -> Source:
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
    if place.kind == "images":
        return ImageSource(Path(place.address), place.files)
    return VideoSource(place.address)

"""Frames of videos as samples, one per interval."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from kdedge.data.samples import ImageSample, StoredSample
from kdedge.data.skipped_samples import SkippedSample
from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.video_source import VideoSource
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import encode_jpeg, open_image

__all__ = ["FrameSample", "expected_frames", "sampled_frames"]

_USUAL_FPS = 25.0
"""Frame rate of a file that declares none."""
_QUALITY = 95


@dataclass(frozen=True, slots=True)
class FrameSample(ImageSample):
    """Frame of a video, held in memory as JPEG: videos cannot be read in random order."""

    content: bytes

    def __str__(self) -> str:
        return self.name

    def open(self) -> Image.Image:
        """Open the frame; see `ImageSample.open`."""
        return open_image(self.name, self.content)

    def stamp(self) -> str:
        """Return an empty string: the content is part of the sample; see `StoredSample.stamp`."""
        return ""


def expected_frames(path: Path, every_s: float) -> int:
    """Return the approximate number of frames that `sampled_frames` yields, at least 1."""
    try:
        with VideoSource(path) as video:
            return max(1, round((video.expected or 0) / _interval(video, every_s)))
    except SourceError:  # reported when the frames are read
        return 1


def sampled_frames(path: Path, name: str, every_s: float) -> Iterator[StoredSample | SkippedSample]:
    """Yield one frame per interval, and for unreadable frames one `SkippedSample` at the end.

    Args:
        path: video that OpenCV decodes.
        name: prefix of the sample names.
        every_s: interval in seconds; at most every frame is taken.

    Raises:
        MissingDependency: OpenCV is not installed.
    """
    try:
        with VideoSource(path) as video:
            interval, due = _interval(video, every_s), 0.0
            for frame in video:
                if frame.index + 0.5 > due:
                    yield FrameSample(displayable(f"{name}/{frame.index:06}"), encode_jpeg(frame.sample, _QUALITY))
                    due = max(due + interval, frame.index + 0.5)
            if video.unreadable:
                yield SkippedSample(f"{video.unreadable:,} frames of {displayable(name)}", "unreadable")
    except SourceError:
        yield SkippedSample(displayable(name), "without readable frames")


def _interval(video: VideoSource, every_s: float) -> float:
    """Return the interval in frames, at least 1."""
    return max(1.0, every_s * (video.fps or _USUAL_FPS))

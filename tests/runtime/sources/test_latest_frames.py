"""Latest-frame source: dropped frames are counted and returned frames are recent."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.sources.video_source import VideoSource

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Camera:
    """Live source of `count` frames at intervals of `period_s` that then ends, fails or hangs."""

    name, live, expected, dropped, unreadable, reconnects = "test camera", True, None, 0, 0, 0
    paths: tuple[Path, ...] = ()

    def __init__(self, count: int, period_s: float, end: str = "ends") -> None:
        self.fps = 1 / period_s
        self.is_open = False
        self._count, self._period_s, self._end = count, period_s, end
        self._released = threading.Event()

    def __enter__(self) -> "Camera":
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            time.sleep(self._period_s)
            yield Frame(index, IMAGE, time.monotonic(), str(index))
        if self._end == "breaks":
            raise SourceError("the cable is out")
        if self._end == "falls silent":
            self._released.wait(30)

    def release(self) -> None:
        self._released.set()


def test_slow_consumer_gets_recent_frames_and_drops_are_counted() -> None:
    camera = Camera(count=60, period_s=0.005)
    seen, ages = [], []
    with LatestFrames(camera) as source:
        for frame in source:
            ages.append(time.monotonic() - frame.captured_at)
            seen.append(frame.index)
            time.sleep(0.04)
    assert seen == sorted(set(seen))
    assert seen[-1] == 59, "the last frame is kept"
    assert source.dropped > 30
    assert len(seen) + source.dropped == 60
    assert sorted(ages)[len(ages) // 2] < 0.03, "frames must not queue up"
    assert not camera.is_open


class PacedCamera(Camera):
    """Camera that takes the next frame once the consumer has the previous one, on a machine of any speed."""

    def __init__(self, count: int) -> None:
        super().__init__(count, period_s=0.001)
        self.taken = threading.Semaphore()

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            assert self.taken.acquire(timeout=30)
            yield frame


def test_fast_consumer_gets_every_frame() -> None:
    camera, seen = PacedCamera(count=10), []
    with LatestFrames(camera) as source:
        for frame in source:
            seen.append(frame.index)
            camera.taken.release()
    assert seen == list(range(10))
    assert source.dropped == 0


def test_reader_error_is_raised_after_last_frame() -> None:
    seen = []
    with pytest.raises(SourceError, match="the cable is out"), LatestFrames(Camera(3, 0.02, "breaks")) as source:
        for frame in source:
            seen.append(frame.index)
    assert seen == [0, 1, 2]


def test_early_exit_stops_reader_and_closes_source() -> None:
    camera = Camera(count=10_000, period_s=0.002)
    with LatestFrames(camera) as source:
        next(iter(source))
    assert not camera.is_open
    assert not any(thread.name == "kdedge-reader" for thread in threading.enumerate())


def test_unread_source_is_closed() -> None:
    camera = Camera(1, 0.001)
    with LatestFrames(camera):
        assert camera.is_open
    assert not camera.is_open


def test_wait_for_silent_camera_can_be_stopped() -> None:
    camera, stop = Camera(1, 0.001, "falls silent"), threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with LatestFrames(camera, stop) as source:
        assert [frame.index for frame in source] == [0]
        waited = time.monotonic() - started
        camera.release()
    assert waited < 2


def test_file_is_played_in_real_time(video) -> None:
    started = time.monotonic()
    with LatestFrames(VideoSource(video)) as source:
        frames = list(source)
    elapsed = time.monotonic() - started
    assert len(frames) + source.dropped == 24
    assert 23 / 12 <= elapsed < 23 / 12 + 1.0
    gaps = np.diff([frame.captured_at for frame in frames])
    assert np.median(gaps) == pytest.approx(1 / 12, rel=0.25)

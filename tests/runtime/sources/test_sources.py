"""Sources return RGB frames and count missing ones."""

import itertools
import logging
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.sources import open_source
from kdedge_runtime.sources.camera import without_password
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.live_source import LiveSource
from kdedge_runtime.sources.video_source import VideoSource

REFERENCE_VIDEO = Path(__file__).parents[3].parent / "shared" / "data" / "camera-bottles-640x360.mp4"


def test_folder_gives_images_in_order(photos: Path, red_spot: np.ndarray) -> None:
    with open_source(str(photos)) as source:
        frames = list(source)
    assert [frame.name for frame in frames] == ["1-red.png", "2-green.png", "3-blue.png"]
    assert [frame.index for frame in frames] == [0, 1, 2]
    np.testing.assert_array_equal(frames[0].sample, red_spot)
    assert source.expected == 3
    assert (source.live, source.fps, source.dropped, source.unreadable) == (False, None, 0, 0)


def test_frame_names_include_subfolders(photos: Path) -> None:
    (photos / "more").mkdir()
    shutil.copy(photos / "1-red.png", photos / "more" / "1-red.png")
    with ImageSource(photos) as source:
        assert [frame.name for frame in source][-1] == "more/1-red.png"


def test_unreadable_image_is_skipped_counted_and_named(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (photos / "2-green.png").read_bytes()
    (photos / "2-green.png").write_bytes(whole[: len(whole) // 2])
    with ImageSource(photos) as source, caplog.at_level(logging.WARNING):
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 2], "the skipped image leaves a gap"
    assert source.unreadable == 1
    assert len(frames) + source.unreadable == source.expected
    assert "2-green.png" in caplog.text


def test_unreadable_files_are_counted_per_round_and_logged_once(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cv2 = pytest.importorskip("cv2", reason="videos need OpenCV")
    (photos / "2-green.png").write_bytes(b"")
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (64, 48))
    for seed in range(8):
        writer.write(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    for name, word in ((photos, "2-green.png"), (tmp_path / "a.avi", "declares 8 frames")):
        caplog.clear()
        with open_source(str(name), loop=True) as source, caplog.at_level(logging.WARNING):
            frames = itertools.takewhile(lambda frame: frame.index < 20, source)
            assert sum(1 for _ in frames) > 5
        assert source.unreadable >= 3
        assert len(caplog.records) == 1 and word in caplog.text


def test_single_unreadable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with ImageSource(tmp_path / "broken.jpg") as source, pytest.raises(SourceError, match=r"broken\.jpg"):
        next(iter(source))


def test_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="contains no images"):
        open_source(str(tmp_path)).__enter__()


def test_video_gives_every_frame_in_rgb(video: Path) -> None:
    with open_source(str(video)) as source:
        frames = list(source)
    assert (source.fps, source.expected, source.unreadable) == (12.0, 24, 0)
    assert [frame.index for frame in frames] == list(range(24))
    for frame in frames:
        assert frame.sample.shape == (96, 128, 3)
        red, _, blue = frame.sample.reshape(-1, 3).mean(axis=0)
        assert (red > 150 > blue) if frame.index < 12 else (blue > 150 > red)


def test_all_frames_of_the_reference_video_are_accounted_for() -> None:
    if not REFERENCE_VIDEO.is_file():
        pytest.skip(f"no reference video at {REFERENCE_VIDEO}")
    pytest.importorskip("cv2", reason="videos need OpenCV")
    with VideoSource(REFERENCE_VIDEO) as source:
        count = sum(1 for _ in source)
    assert (count, source.unreadable, source.expected) == (1189, 0, 1189)


class _FlakyCapture:
    """Capture whose reads fail at some positions, as for a damaged file."""

    def __init__(self, frames: list[bool]) -> None:
        self._frames = frames
        self._position = -1

    def grab(self) -> bool:
        self._position += 1
        return self._position < len(self._frames) and self._frames[self._position]

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((4, 4, 3), self._position, dtype=np.uint8)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("reads", "given"),
    [([True, False, False, True], [0, 3]), ([True, True], [0, 1]), ([False] * 3 + [True], [3])],
)
def test_failed_video_reads_are_counted_and_skipped(video: Path, reads: list[bool], given: list[int]) -> None:
    with VideoSource(video) as source:
        source._capture.release()
        source._capture, source.expected = _FlakyCapture(reads), 4
        frames = list(source)
        assert [frame.index for frame in frames] == given
        assert [int(frame.sample[0, 0, 0]) for frame in frames] == given
        assert len(frames) + source.unreadable == 4


def _noise_video(path: Path) -> bytes:
    cv2 = pytest.importorskip("cv2", reason="videos need OpenCV")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 12.0, (128, 96))
    for seed in range(24):
        writer.write(np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    writer.release()
    return path.read_bytes()


def test_damaged_video_losses_are_counted_and_logged_once(tmp_path: Path) -> None:
    content = bytearray(_noise_video(tmp_path / "sound.mp4"))
    start, index = content.find(b"mdat"), content.find(b"moov")
    hole = slice(start + (index - start) // 2, index - 4)
    content[hole] = bytes(hole.stop - hole.start)
    (tmp_path / "damaged.mp4").write_bytes(content)
    program = (
        "from pathlib import Path\n"
        "from kdedge_runtime.sources.video_source import VideoSource\n"
        "with VideoSource(Path('damaged.mp4')) as source:\n"
        "    print(len(list(source)), source.unreadable, source.expected)"
    )
    # In a subprocess, because OpenCV sets FFmpeg's log level only once.
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    given, unreadable, expected = map(int, done.stdout.split())
    assert 0 < given < 24
    assert given + unreadable == expected == 24
    assert done.stderr.splitlines() == [
        f"damaged.mp4 declares 24 frames, but {given} could be read: the file is damaged, or its count is an estimate"
    ]


def test_truncated_video_is_an_error(tmp_path: Path) -> None:
    content = _noise_video(tmp_path / "sound.mp4")
    (tmp_path / "short.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"short\.mp4 cannot be opened as a video"):
        VideoSource(tmp_path / "short.mp4").__enter__()


@pytest.mark.parametrize("text", ["not .*video", ""])
def test_non_video_file_is_an_error(tmp_path: Path, text: str) -> None:
    pytest.importorskip("cv2", reason="videos need OpenCV")
    (tmp_path / "notes.mp4").write_text(text)
    with pytest.raises(SourceError, match="cannot be opened as a video"):
        VideoSource(tmp_path / "notes.mp4").__enter__()


def test_missing_camera_error_mentions_csi() -> None:
    pytest.importorskip("cv2", reason="cameras need OpenCV")
    with pytest.raises(SourceError, match=r"Camera 63 did not open.*--source csi:0"):
        open_source("63").__enter__()


def test_video_url_is_a_finite_video(video: Path) -> None:
    handler = partial(_Quiet, directory=str(video.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with open_source(f"http://127.0.0.1:{server.server_address[1]}/{video.name}") as source:
            assert [frame.index for frame in source] == list(range(24))
    finally:
        server.shutdown()
        server.server_close()
    assert (source.live, source.expected, source.unreadable) == (False, 24, 0)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_unreachable_stream_is_an_error() -> None:
    pytest.importorskip("cv2", reason="streams need OpenCV")
    with pytest.raises(SourceError, match=r"The stream tcp://127\.0\.0\.1:9 did not open"):
        open_source("tcp://127.0.0.1:9").__enter__()


def test_passwords_in_urls_are_masked() -> None:
    assert without_password("rtsp://admin:s3cret@10.0.0.5:554/live") == "rtsp://***@10.0.0.5:554/live"
    for address in ("rtsp://admin:s3cret@10.0.0.5:554/live", "http://admin:s3cret@10.0.0.5/film.mp4"):
        assert "s3cret" not in open_source(address).name


def test_invalid_stream_url_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not a valid stream URL"):
        open_source("rtsp://[10.0.0.5/live")


def test_addresses_are_classified(photos: Path, video: Path) -> None:
    assert isinstance(open_source(str(photos / "1-red.png")), ImageSource)
    assert isinstance(open_source(str(video)), VideoSource)
    assert isinstance(open_source("0", "all"), LiveSource)
    assert isinstance(open_source("/dev/video0", "all"), LiveSource)
    assert open_source("synthetic:").name.startswith("synthetic:")
    with pytest.raises(SourceError, match="The file or folder"):
        open_source("nowhere.mp4")


def test_default_frame_policy_depends_on_source(video: Path) -> None:
    assert isinstance(open_source("rtsp://host/cam"), LatestFrames)
    assert isinstance(open_source(str(video)), VideoSource)
    assert isinstance(open_source(str(video), "latest"), LatestFrames)


def test_images_have_no_latest_policy(photos: Path) -> None:
    with pytest.raises(UsageError, match="--frames all"):
        open_source(str(photos), "latest")


def test_frame_time_is_its_read_time(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    before = time.monotonic()
    with ImageSource(tmp_path) as source:
        (frame,) = source
    assert before <= frame.captured_at <= time.monotonic()

"""Grammar of `--source`, with errors that suggest the closest match."""

from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.sources import open_source
from kdedge_runtime.sources.grammar import parse_source
from kdedge_runtime.sources.looped import LoopedSource


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("0", "usb", "0"),
        ("usb:2", "usb", "2"),
        ("/dev/video0", "usb", "/dev/video0"),
        ("/dev/video-cam", "usb", "/dev/video-cam"),
        ("csi:1", "csi", "1"),
        ("rtsp://user:x@10.0.0.5:554/live", "stream", "rtsp://user:x@10.0.0.5:554/live"),
        ("http://host/stream.mjpg", "stream", "http://host/stream.mjpg"),
        ("tcp://127.0.0.1:8888", "stream", "tcp://127.0.0.1:8888"),
        ("udp://:5000", "stream", "udp://:5000"),
        ("https://host/film.MP4?token=1", "video", "https://host/film.MP4?token=1"),
        ("synthetic:", "synthetic", ""),
        ("synthetic:fish", "synthetic", "fish"),
    ],
)
def test_addresses_are_classified(text: str, kind: str, address: str) -> None:
    place = parse_source(text)
    assert (place.kind, place.address) == (kind, address)


def test_paths_are_classified(photos: Path) -> None:
    (photos / "film.mp4").touch()
    assert parse_source(str(photos)).kind == "images"
    assert parse_source(str(photos / "1-red.png")).kind == "images"
    assert parse_source(str(photos / "film.mp4")).kind == "video"
    assert parse_source(str(photos / "*.mp4")).address == str(photos / "film.mp4")


def test_pattern_matches_images_in_order(photos: Path) -> None:
    place = parse_source(str(photos / "[12]-*.png"))
    assert [path.name for path in place.files] == ["1-red.png", "2-green.png"]
    with open_source(str(photos / "*.png")) as source:
        assert [frame.name for frame in source] == ["1-red.png", "2-green.png", "3-blue.png"]


def test_relative_pattern_is_supported(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    assert len(parse_source("photos/*.png").files) == 3


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("usb", "usb:0"),
        ("usb0", "usb:0"),
        ("csi", "csi:0"),
        ("cis:0", "csi:0"),
        ("sythetic:", "synthetic:"),
        ("synthetic", "synthetic:"),
        ("sythetic:fish", "synthetic:"),
        ("htp://host/stream", "http://"),
        ("rstp://host/cam", "rtsp://"),
    ],
)
def test_typo_error_suggests_closest_source(text: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean {nearest}") as caught:
        parse_source(text)
    for form in ("usb:0", "csi:0", "rtsp://", "photos/*.jpg", "synthetic:[CLASS]"):
        assert form in str(caught.value)


@pytest.mark.parametrize("text", ["usb:", "usb:front", "csi:x", "rtsp://", "rtsp://[10.0.0.5/live", "gopher://host/x"])
def test_invalid_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="Expected"):
        parse_source(text)


def test_missing_file_error_suggests_closest_name(photos: Path) -> None:
    with pytest.raises(SourceError, match=r"file or folder .* does not exist.*Did you mean .*1-red\.png\?.*usb:0"):
        parse_source(str(photos / "1-rde.png"))
    with pytest.raises(SourceError, match="No file matches"):
        parse_source(str(photos / "*.jpg"))


def test_unknown_home_folder_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="home folder"):
        parse_source("~nobody-of-this-name/film.mp4")


def test_file_name_with_colon_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "12:30.png")
    monkeypatch.chdir(tmp_path)
    assert parse_source("12:30.png").kind == "images"


def test_loop_repeats_with_continuous_indices(photos: Path) -> None:
    with open_source(str(photos), loop=True) as source:
        frames = list(islice(source, 7))
    assert [frame.index for frame in frames] == list(range(7))
    assert [frame.name for frame in frames[2:5]] == ["3-blue.png", "1-red.png", "2-green.png"]
    assert source.expected is None


def test_video_can_be_looped(video: Path) -> None:
    with open_source(str(video), loop=True) as source:
        frames = list(islice(source, 50))
    assert [frame.index for frame in frames] == list(range(50))
    assert source.fps == 12.0
    assert source.unreadable == 0


def test_loop_without_readable_frames_fails(photos: Path) -> None:
    for picture in photos.glob("*.png"):
        picture.write_bytes(b"broken")
    with LoopedSource(open_source(str(photos))) as source, pytest.raises(SourceError, match="nothing to repeat"):
        list(source)


def test_live_source_cannot_be_looped() -> None:
    with pytest.raises(UsageError, match="has no end"):
        open_source("synthetic:", loop=True)

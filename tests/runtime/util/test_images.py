"""Image decoding: pixels, orientation, color models and errors."""

import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from kdedge_runtime.errors import SourceError
from kdedge_runtime.util.images import (
    UnreadableImage,
    decode_image,
    image_files,
    load_image,
    open_image,
    read_image,
)


@pytest.fixture
def colors() -> np.ndarray:
    """Image, uint8 RGB [6, 4, 3]: red left half, blue right half, one white pixel at the top left."""
    picture = np.zeros((6, 4, 3), dtype=np.uint8)
    picture[:, :2, 0] = 255
    picture[:, 2:, 2] = 255
    picture[0, 0] = 255
    return picture


def noise_jpeg(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, "JPEG")
    return path


def fault_of(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_image(path)
    assert path.name in str(caught.value)
    assert isinstance(caught.value, UnreadableImage)
    return caught.value.fault


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".webp"])
def test_lossless_formats_give_exact_pixels(tmp_path: Path, colors: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(colors).save(path, lossless=True)
    read = read_image(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, colors)


def test_format_is_detected_by_content(tmp_path: Path, colors: np.ndarray) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(colors).save(path, "PNG")
    np.testing.assert_array_equal(read_image(path), colors)


# Orientation transforms from the EXIF 2.3 table, in numpy.
EXIF_VIEWS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", EXIF_VIEWS)
def test_the_exif_orientation_is_applied(tmp_path: Path, colors: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colors).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), EXIF_VIEWS[orientation](colors))


def test_damaged_exif_is_ignored(tmp_path: Path, colors: np.ndarray) -> None:
    Image.fromarray(colors).save(tmp_path / "a.png", exif=b"Exif\0\0garbage")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colors)


def test_transparency_is_blended_onto_white(tmp_path: Path, colors: np.ndarray) -> None:
    alpha = np.full((6, 4, 1), 255, dtype=np.uint8)
    alpha[5] = 0
    Image.fromarray(np.concatenate([colors, alpha], axis=2)).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read[:5], colors[:5])
    assert (read[5] == 255).all()


def test_palette_is_converted(tmp_path: Path, colors: np.ndarray) -> None:
    Image.fromarray(colors).quantize(8).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colors)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[4, 4], (255, 0, 0), atol=6)


def test_sixteen_bit_gray_keeps_its_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read[..., 0], ramp // 256)
    np.testing.assert_array_equal(read[..., 0], read[..., 2])


def test_animation_gives_first_frame(tmp_path: Path, colors: np.ndarray) -> None:
    frames = [Image.fromarray(colors), Image.fromarray(colors[:, ::-1])]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colors)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_gray_files_are_detected(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").is_gray


def test_gray_rgb_file_is_not_gray(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "grey").save(tmp_path / "a.png")
    assert not load_image(tmp_path / "a.png").is_gray


def test_truncated_jpeg_is_rejected(tmp_path: Path) -> None:
    path = noise_jpeg(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-1500])
    assert fault_of(path) == "truncated"


def test_truncated_png_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    assert fault_of(path) == "truncated"


def test_each_fault_is_classified(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>404 Not Found</html>")
    (tmp_path / "folder.jpg").mkdir()
    Image.new("F", (4, 4)).save(tmp_path / "float.tif")
    assert fault_of(tmp_path / "empty.jpg") == "empty"
    assert fault_of(tmp_path / "page.jpg") == "not an image"
    assert fault_of(tmp_path / "folder.jpg") == "unreadable"
    assert fault_of(tmp_path / "missing.jpg") == "unreadable"
    assert fault_of(tmp_path / "float.tif") == "of unsupported pixel type"


def test_pillow_parser_error_is_a_file_error(tmp_path: Path) -> None:
    # Header of an SGI image with nine channels, for which Pillow raises ValueError.
    header = b"\x01\xda\x00\x01" + np.array([3, 4, 4, 9], dtype=">u2").tobytes()
    (tmp_path / "a.jpg").write_bytes(header + bytes(1000))
    assert fault_of(tmp_path / "a.jpg") == "not an image"


def test_decompression_bomb_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = noise_jpeg(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert fault_of(path) == "too large"


def test_archive_member_is_decoded(tmp_path: Path) -> None:
    path = noise_jpeg(tmp_path / "a.jpg")
    with open_image("a.jpg in b.tar", path.read_bytes()) as opened:
        assert opened.size == (64, 64)
        np.testing.assert_array_equal(decode_image(opened, "a.jpg in b.tar").pixels, read_image(path))


@pytest.mark.parametrize(("keep", "fault"), [(0, "empty"), (1, "not an image"), (2000, "truncated")])
def test_damaged_archive_member_error_has_its_name(tmp_path: Path, keep: int, fault: str) -> None:
    content = noise_jpeg(tmp_path / "a.jpg").read_bytes()[:keep]
    with pytest.raises(UnreadableImage, match=r"a\.jpg in b\.tar is") as caught:
        decode_image(open_image("a.jpg in b.tar", content), "a.jpg in b.tar")
    assert caught.value.fault == fault


def test_images_are_found_in_path_order(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.JPG", "a/10.webp", "c.jpeg", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in (".thumbnails/1.png", "a/.ipynb_checkpoints/2.png", "__MACOSX/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert found == ["a/10.webp", "a/2.JPG", "b/1.png", "c.jpeg"], "each folder once, under its own name"


def test_linked_folder_is_visited_once(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    for folder in (outside, inside):
        folder.mkdir()
    (outside / "1.png").touch()
    for name in ("x", "y"):
        (inside / name).symlink_to(outside)
    assert [path.relative_to(inside).as_posix() for path in image_files(inside)] == ["x/1.png"]
    assert [path.relative_to(inside / "x").as_posix() for path in image_files(inside / "x")] == ["1.png"]


def test_cyclic_links_terminate(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
        for number in range(2):
            (tmp_path / name / f"to{number}").symlink_to(tmp_path / other)
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path / "a")]
    assert sorted(found) == ["a/1.png", "a/to0/1.png"]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["photo.jpg", "photo.eps"])
def test_postscript_does_not_start_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "gs"
    script.write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # not detected yet
    (tmp_path / name).write_bytes(POSTSCRIPT)
    assert fault_of(tmp_path / name) == "not an image"
    assert not (tmp_path / "started").exists()


def test_every_image_open_uses_the_format_list() -> None:
    root = Path(__file__).parents[3]
    if not (root / "runtime").is_dir():
        pytest.skip("the sources are not here")
    sources = [path for name in ("kdedge", "export", "runtime") for path in (root / name).rglob("*.py")]
    calls = [
        line for path in sources for line in path.read_text(encoding="utf-8").splitlines() if "Image.open(" in line
    ]
    assert calls
    assert [line for line in calls if "formats=" not in line] == []


@pytest.mark.parametrize("size", [(20_001, 1), (1, 20_001), (7_100, 7_100)])
def test_oversized_image_is_rejected_before_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    Image.new("1", size).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    assert fault_of(tmp_path / "a.png") == "too large"


def test_image_within_limits_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 2)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (2, 20_000, 3)


def test_deep_gray_conversion_does_not_widen_the_array(tmp_path: Path) -> None:
    side = 1500
    Image.fromarray(np.zeros((side, side), dtype=np.uint16)).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png")
    tracemalloc.start()
    try:
        read_image(tmp_path / "a.png")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * side * side, "int64 copies would take twice 8 bytes per pixel"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 256, 65_535], [0, 1, 255]),
        ([0, 2**30, 2**31 - 1], [0, 127, 255]),
        ([0, 2**16, 2**20 - 1], [0, 16, 255]),
        ([-5, 0, 65_535], [0, 0, 255]),
    ],
)
def test_thirty_two_bit_gray_is_scaled_not_clipped(tmp_path: Path, values: list[int], expected: list[int]) -> None:
    Image.fromarray(np.array([values], dtype=np.int32)).save(tmp_path / "a.tif")
    read = read_image(tmp_path / "a.tif")[0, :, 0].tolist()
    assert read == pytest.approx(expected, abs=1)


def test_unsigned_thirty_two_bit_gray_does_not_wrap(tmp_path: Path) -> None:
    deep = Image.fromarray(np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32).view(np.int32))
    deep.save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, kind, 0) for kind in (2, 1))  # SampleFormat tag
    assert content.count(signed) == 1
    (tmp_path / "a.tif").write_bytes(content.replace(signed, unsigned))
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.skipif(sys.platform != "linux", reason="memory limits need Linux")
def test_image_exceeding_memory_is_skipped(tmp_path: Path) -> None:
    Image.new("RGBA", (7000, 7000)).save(tmp_path / "a.png", compress_level=1)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from kdedge_runtime.util.process import memory_mb\n"
        "from kdedge_runtime.sources.image_source import ImageSource\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 100 * 2**20,) * 2)\n"
        "with ImageSource(Path(sys.argv[1])) as source:\n"
        "    print([frame.name for frame in source], source.unreadable)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "['b.png'] 1\n", done.stderr
    assert "a.png" in done.stderr and "memory" in done.stderr

"""A picture file is read as a person sees it, or refused with a reason."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge_runtime.errors import SourceError
from kdedge_runtime.pictures import (
    UnreadablePicture,
    decode_picture,
    load_picture,
    open_picture,
    picture_files,
    read_picture,
)


@pytest.fixture
def colours() -> np.ndarray:
    """uint8 RGB [6, 4, 3]: red left half, blue right half, one white pixel at the top left."""
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
        read_picture(path)
    assert path.name in str(caught.value)
    assert isinstance(caught.value, UnreadablePicture)
    return caught.value.fault


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".webp"])
def test_lossless_formats_give_the_very_pixels(tmp_path: Path, colours: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(colours).save(path, lossless=True)
    read = read_picture(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, colours)


def test_the_content_decides_and_not_the_suffix(tmp_path: Path, colours: np.ndarray) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(colours).save(path, "PNG")
    np.testing.assert_array_equal(read_picture(path), colours)


# How the stored rows and columns reach the eye, from the EXIF 2.3 table, written with numpy only.
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
def test_the_exif_orientation_is_applied(tmp_path: Path, colours: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colours).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), EXIF_VIEWS[orientation](colours))


def test_a_damaged_exif_block_does_not_cost_the_picture(tmp_path: Path, colours: np.ndarray) -> None:
    Image.fromarray(colours).save(tmp_path / "a.png", exif=b"Exif\0\0garbage")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), colours)


def test_transparent_parts_lie_on_white(tmp_path: Path, colours: np.ndarray) -> None:
    alpha = np.full((6, 4, 1), 255, dtype=np.uint8)
    alpha[5] = 0
    Image.fromarray(np.concatenate([colours, alpha], axis=2)).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read[:5], colours[:5])
    assert (read[5] == 255).all()


def test_a_palette_is_looked_up(tmp_path: Path, colours: np.ndarray) -> None:
    Image.fromarray(colours).quantize(8).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), colours)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_picture(tmp_path / "a.jpg")[4, 4], (255, 0, 0), atol=6)


def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read[..., 0], ramp // 256)
    np.testing.assert_array_equal(read[..., 0], read[..., 2])


def test_only_the_first_frame_of_an_animation_is_read(tmp_path: Path, colours: np.ndarray) -> None:
    frames = [Image.fromarray(colours), Image.fromarray(colours[:, ::-1])]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), colours)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_files_are_recognised(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    assert load_picture(tmp_path / "a.png").is_grey


def test_a_grey_looking_colour_file_is_a_colour_file(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "grey").save(tmp_path / "a.png")
    assert not load_picture(tmp_path / "a.png").is_grey


def test_a_truncated_jpeg_is_refused_and_never_padded_with_grey(tmp_path: Path) -> None:
    path = noise_jpeg(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-1500])
    assert fault_of(path) == "truncated"


def test_a_truncated_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    assert fault_of(path) == "truncated"


def test_each_other_fault_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>404 Not Found</html>")
    (tmp_path / "folder.jpg").mkdir()
    Image.new("F", (4, 4)).save(tmp_path / "float.tif")
    assert fault_of(tmp_path / "empty.jpg") == "empty"
    assert fault_of(tmp_path / "page.jpg") == "not an image"
    assert fault_of(tmp_path / "folder.jpg") == "unreadable"
    assert fault_of(tmp_path / "missing.jpg") == "unreadable"
    assert fault_of(tmp_path / "float.tif") == "of unsupported pixel type"


def test_what_a_parser_of_pillow_stumbles_over_is_a_fault_of_the_file(tmp_path: Path) -> None:
    # The header of a Silicon Graphics picture with nine channels: Pillow raises a bare ValueError.
    header = b"\x01\xda\x00\x01" + np.array([3, 4, 4, 9], dtype=">u2").tobytes()
    (tmp_path / "a.jpg").write_bytes(header + bytes(1000))
    assert fault_of(tmp_path / "a.jpg") == "not an image"


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = noise_jpeg(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert fault_of(path) == "too large"


def test_a_part_of_an_archive_is_read_as_a_file_is(tmp_path: Path) -> None:
    path = noise_jpeg(tmp_path / "a.jpg")
    with open_picture("a.jpg in b.tar", path.read_bytes()) as opened:
        assert opened.size == (64, 64)
        np.testing.assert_array_equal(decode_picture(opened, "a.jpg in b.tar").pixels, read_picture(path))


@pytest.mark.parametrize(("keep", "fault"), [(0, "empty"), (1, "not an image"), (2000, "truncated")])
def test_a_damaged_part_of_an_archive_is_refused_by_its_name(tmp_path: Path, keep: int, fault: str) -> None:
    content = noise_jpeg(tmp_path / "a.jpg").read_bytes()[:keep]
    with pytest.raises(UnreadablePicture, match=r"a\.jpg in b\.tar is") as caught:
        decode_picture(open_picture("a.jpg in b.tar", content), "a.jpg in b.tar")
    assert caught.value.fault == fault


def test_pictures_below_a_folder_are_found_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.JPG", "a/10.webp", "c.jpeg", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in (".thumbnails/1.png", "a/.ipynb_checkpoints/2.png", "__MACOSX/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in picture_files(tmp_path)]
    assert found == ["a/10.webp", "a/2.JPG", "b/1.png", "b/link/10.webp", "b/link/2.JPG", "c.jpeg"]

"""Picture files of any kind as RGB arrays: the one reader that training, validation and device share."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from kdedge_runtime.arrays import Pixels
from kdedge_runtime.errors import SourceError

__all__ = [
    "LONGEST_JPEG_PX",
    "PICTURE_SUFFIXES",
    "Fault",
    "Picture",
    "UnreadablePicture",
    "decode_picture",
    "files_below",
    "is_picture",
    "jpeg",
    "load_picture",
    "open_picture",
    "picture_files",
    "read_picture",
    "upright_size",
]

PICTURE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Lower-case suffixes of files that are meant as pictures, whether or not Pillow can decode them here."""

LONGEST_JPEG_PX = 65_500
"""Of a side, in libjpeg."""

Fault: TypeAlias = Literal["unreadable", "empty", "not an image", "truncated", "too large", "of unsupported pixel type"]

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = {
    *(Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
    *(Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE),
}
"""Exchange width and height."""


class UnreadablePicture(SourceError):
    """A picture file cannot be decoded; `fault` says why in a word or two."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault: Fault = fault


@dataclass(frozen=True)
class Picture:
    """A decoded picture file."""

    pixels: Pixels
    """uint8 RGB `[H, W, 3]`, upright."""
    is_grey: bool
    """The file stores a single grey channel, which became R = G = B."""


def is_picture(path: Path) -> bool:
    """Whether a file's name says that it is a picture; hidden files are none."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def files_below(folder: Path) -> Iterator[Path]:
    """All visible files, through links too, but for those that lead back to a folder around them."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        shown = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        folders[:] = [name for name in shown if not _leads_back(Path(parent, name))]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def picture_files(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by their path relative to it; see `files_below`."""
    found = [path for path in files_below(folder) if is_picture(path) and path.is_file()]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def read_picture(path: str | Path) -> Pixels:
    """Read a picture as a person sees it: uint8 RGB `[H, W, 3]`.

    Raises:
        UnreadablePicture: see `load_picture`.
    """
    return load_picture(path).pixels


def load_picture(path: str | Path) -> Picture:
    """Read a picture as a person sees it, or refuse it: a damaged file never gives a half-grey picture.

    Args:
        path: a file in any format that Pillow reads.

    Raises:
        UnreadablePicture: see `open_picture` and `decode_picture`.
    """
    with open_picture(path) as opened:
        return decode_picture(opened, str(path))


def open_picture(path: str | Path, content: bytes | None = None) -> Image.Image:
    """Read a picture's header; its size is known then, its pixels wait for `decode_picture`.

    Args:
        path: a file in any format that Pillow reads.
        content: what the file holds, where it is not a file of its own but part of an archive, say; `path` is then
            what messages call it.

    Raises:
        UnreadablePicture: the file is missing, empty, no picture, or too large to be decoded safely.
    """
    try:
        size_bytes = Path(path).stat().st_size if content is None else len(content)
        opened = Image.open(path if content is None else io.BytesIO(content)) if size_bytes else None
    except UnidentifiedImageError as error:
        raise UnreadablePicture(
            f"{path} is not a picture that Pillow can read. Expected JPEG, PNG, WebP, …", "not an image"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadablePicture(f"{path} is too large: {error} Scale it down first.", "too large") from error
    except OSError as error:
        raise UnreadablePicture(f"{path} cannot be read: {error.strerror or error}.", "unreadable") from error
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        raise UnreadablePicture(f"{path} is damaged ({error}). Copy it again or remove it.", "not an image") from error
    if opened is None:
        raise UnreadablePicture(f"{path} is empty (0 bytes). Copy it again or remove it.", "empty")
    return opened


def decode_picture(opened: Image.Image, name: str) -> Picture:
    """The pixels of an opened picture as a person sees them.

    The EXIF orientation is applied, the first frame of an animation is taken, transparent parts are laid on
    white, 16-bit grey becomes 8-bit by its upper byte, and other colour models are converted to RGB.

    Args:
        opened: from `open_picture`, or any other picture of Pillow's.
        name: what messages call it.

    Raises:
        UnreadablePicture: it is damaged, or its pixels cannot become RGB.
    """
    try:
        opened.load()
    except Exception as error:  # Pillow's decoders raise whatever their parsers raise
        raise UnreadablePicture(
            f"{name} is truncated or damaged ({error}). Copy it again or remove it.", "truncated"
        ) from error
    try:
        upright = _upright(_rgb(opened), _orientation(opened))
    except ValueError as error:
        raise UnreadablePicture(
            f"{name} has pixels that cannot become RGB ({error}). Save it as 8-bit RGB.", "of unsupported pixel type"
        ) from error
    return Picture(np.asarray(upright), is_grey=opened.mode in _GREY_MODES)


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture as `decode_picture` gives it; of most formats only the header is read."""
    width, height = opened.size
    is_turned = _UPRIGHT.get(_orientation(opened)) in _TURNED
    return (height, width) if is_turned else (width, height)


def jpeg(picture: Pixels, quality: int) -> bytes:
    """Encode uint8 RGB `[H, W, 3]` as JPEG, scaled down where it is longer than `LONGEST_JPEG_PX`."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    image.thumbnail((LONGEST_JPEG_PX, LONGEST_JPEG_PX))
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it is in itself: every picture would be found dozens of times."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no defined white")
    if picture.mode.startswith("I"):  # Pillow's own conversion would clip 16 bits at 255
        deep = np.asarray(picture).astype(np.int64)
        return Image.fromarray(np.clip(deep >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block leaves a sound picture, which viewers show as it is stored
        return 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture

"""Image file decoding, shared by training, validation and the device."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.util.arrays import Pixels

__all__ = [
    "MAX_SIDE_PX",
    "MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "Fault",
    "DecodedImage",
    "UnreadableImage",
    "decode_image",
    "files_below",
    "is_image_file",
    "encode_jpeg",
    "load_image",
    "open_image",
    "image_files",
    "read_image",
    "upright_size",
]

IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Lower-case suffixes of image files, including those that the installed Pillow cannot decode."""

MAX_PIXELS = 50_000_000
"""Maximum number of pixels to decode: 150 MB as RGB."""
MAX_SIDE_PX = 20_000
"""Maximum side length to decode, in pixels."""

Fault: TypeAlias = Literal["unreadable", "empty", "not an image", "truncated", "too large", "of unsupported pixel type"]

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "MPO", "AVIF", "HEIF")
"""Pillow format names to decode, detected by content. Excludes formats with risks, such as PostScript, which starts
Ghostscript.
"""
_TIFF_SAMPLE_FORMAT = 339
_TIFF_UNSIGNED = 1
_GRAY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
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
"""Transpositions that swap width and height."""


class UnreadableImage(UnreadableSample):
    """Image file that cannot be decoded."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message, fault)


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """Decoded image file."""

    pixels: Pixels
    """uint8 RGB `[H, W, 3]` with EXIF orientation applied."""
    is_gray: bool
    """True if the file stores a single gray channel, copied to R, G and B."""


def is_image_file(path: Path) -> bool:
    """Return True if a file has an image suffix and is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all visible files below a folder, following links.

    Each folder is visited once, preferably under its own name.
    """
    seen: set[tuple[int, int]] = set()
    for above in folder.resolve().parents:  # a link to a parent would lead back here
        _is_new(above, seen)
    starts = [folder]
    while starts:
        links: list[Path] = []
        for start in starts:
            yield from _files_below(start, seen, links)
        starts = sorted(links)


def _files_below(start: Path, seen: set[tuple[int, int]], links: list[Path]) -> Iterator[Path]:
    """Yield the files below an unvisited folder. Links to folders are appended to `links` and not followed."""
    if not _is_new(start, seen):
        return
    for parent, folders, names in os.walk(start):
        shown = [Path(parent, name) for name in sorted(folders) if not name.startswith((".", "__MACOSX"))]
        links += [path for path in shown if path.is_symlink()]
        folders[:] = [path.name for path in shown if not path.is_symlink() and _is_new(path, seen)]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Add a folder to `seen` and return True if it is new."""
    try:
        status = folder.stat()
    except OSError:  # broken link
        return False
    identity = (status.st_dev, status.st_ino)
    is_new = identity not in seen
    seen.add(identity)
    return is_new


def image_files(folder: Path) -> list[Path]:
    """Return all image files below a folder, sorted by relative path; see `files_below`."""
    found = [path for path in files_below(folder) if is_image_file(path) and path.is_file()]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def read_image(path: str | Path) -> Pixels:
    """Read an image file as upright uint8 RGB `[H, W, 3]`.

    Raises:
        UnreadableImage: see `load_image`.
    """
    return load_image(path).pixels


def load_image(path: str | Path) -> DecodedImage:
    """Decode an image file. Damaged files raise an error and are never partially decoded.

    Args:
        path: a JPEG, PNG, WebP, BMP, GIF, TIFF, PNM, AVIF or (with pillow-heif) HEIF file, detected by content.

    Raises:
        UnreadableImage: see `open_image` and `decode_image`.
    """
    with open_image(path) as opened:
        return decode_image(opened, str(path))


def open_image(path: str | Path, content: bytes | None = None) -> Image.Image:
    """Read an image header, which includes the size. `decode_image` decodes the pixels.

    Args:
        path: a file in a format of `load_image`.
        content: file content, if it is not a separate file (e.g. part of an archive). `path` is then its name in
        messages.

    Raises:
        UnreadableImage: the file is missing, empty, not an image, or exceeds `MAX_PIXELS` or `MAX_SIDE_PX`.
    """
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        size_bytes = Path(path).stat().st_size if content is None else len(content)
        opened = Image.open(path if content is None else io.BytesIO(content), formats=formats) if size_bytes else None
    except UnidentifiedImageError as error:
        raise UnreadableImage(
            f"{path} is not an image in a supported format. Expected {', '.join(formats)}.", "not an image"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{path} is too large: {error} Scale it down first.", "too large") from error
    except OSError as error:
        raise UnreadableImage(f"{path} cannot be read: {error.strerror or error}.", "unreadable") from error
    except Exception as error:  # Pillow's parsers raise arbitrary exceptions
        raise UnreadableImage(f"{path} is damaged ({error}). Copy it again or remove it.", "not an image") from error
    if opened is None:
        raise UnreadableImage(f"{path} is empty (0 bytes). Copy it again or remove it.", "empty")
    width, height = opened.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        opened.close()
        raise UnreadableImage(
            f"{path} is too large ({width:,} × {height:,} px). Expected at most {MAX_PIXELS / 1e6:.0f} megapixels "
            f"and {MAX_SIDE_PX:,} px per side: scale it down first.",
            "too large",
        )
    return opened


def decode_image(opened: Image.Image, name: str) -> DecodedImage:
    """Decode the pixels of an opened image as upright RGB.

    EXIF orientation is applied. Animations are reduced to their first frame, transparency is blended onto white, and
    other color models are converted to RGB. 16-bit gray keeps its upper byte. 32-bit gray does too, unless it has
    values above 65,535: then the upper byte of the largest value sets the scale.

    Args:
        opened: image from `open_image`, or any other Pillow image.
        name: name of the image in error messages.

    Raises:
        UnreadableImage: the image is damaged, cannot be converted to RGB, or exceeds the available memory.
    """
    try:
        opened.load()
    except MemoryError as error:
        raise _beyond_memory(opened, name) from error
    except Exception as error:  # Pillow's decoders raise arbitrary exceptions
        raise UnreadableImage(
            f"{name} is truncated or damaged ({error}). Copy it again or remove it.", "truncated"
        ) from error
    try:
        upright = _upright(_rgb(opened), _orientation(opened))
        pixels = np.asarray(upright)
    except MemoryError as error:
        raise _beyond_memory(opened, name) from error
    except ValueError as error:
        raise UnreadableImage(
            f"{name} cannot be converted to RGB ({error}). Save it as 8-bit RGB.",
            "of unsupported pixel type",
        ) from error
    return DecodedImage(pixels, is_gray=opened.mode in _GRAY_MODES)


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image after EXIF rotation, from its header in most formats."""
    width, height = opened.size
    is_turned = _UPRIGHT.get(_orientation(opened)) in _TURNED
    return (height, width) if is_turned else (width, height)


def encode_jpeg(image: Pixels, quality: int) -> bytes:
    """Encode uint8 RGB `[H, W, 3]` as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined white")
    if image.mode.startswith("I"):  # Pillow's conversion would clip at 255
        return Image.fromarray(_upper_byte(image)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _upper_byte(image: Image.Image) -> Pixels:
    """Convert 16- or 32-bit gray to uint8 `[H, W]` without enlarging the array."""
    deep = np.asarray(image)
    if deep.dtype == np.int32:
        is_unsigned = getattr(image, "tag_v2", {}).get(_TIFF_SAMPLE_FORMAT) == (_TIFF_UNSIGNED,)
        deep = deep.view(np.uint32) if is_unsigned else np.maximum(deep, 0)
    shift = max(8, int(deep.max(initial=0)).bit_length() - 8)
    return (deep >> shift).astype(np.uint8)


def _beyond_memory(opened: Image.Image, name: str) -> UnreadableImage:
    width, height = opened.size
    return UnreadableImage(
        f"{name} ({width:,} × {height:,} px) does not fit into the free memory. Scale it down first.",
        "too large",
    )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # an image with damaged EXIF data is valid, and viewers show it unrotated
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image

"""Picture files of any kind as RGB arrays: the one reader that training, validation and device share."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from kdedge_runtime.errors import SourceError
from kdedge_runtime.util.arrays import Pixels

__all__ = [
    "LONGEST_SIDE_PX",
    "MOST_PIXELS",
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

MOST_PIXELS = 50_000_000
"""Largest number of pixels that is decoded: 150 MB as RGB."""
LONGEST_SIDE_PX = 20_000
"""Longest side that is decoded."""

Fault: TypeAlias = Literal["unreadable", "empty", "not an image", "truncated", "too large", "of unsupported pixel type"]

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "MPO", "AVIF", "HEIF")
"""Pillow's names of the formats that are decoded. It goes by content, and would start Ghostscript on PostScript."""
_TIFF_SAMPLE_FORMAT = 339
_TIFF_UNSIGNED = 1
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
    """All visible files, through links too; each folder is walked once, under its own name rather than a link's."""
    seen: set[tuple[int, int]] = set()
    for above in folder.resolve().parents:  # a link to one of them leads back here
        _is_new(above, seen)
    starts = [folder]
    while starts:
        links: list[Path] = []
        for start in starts:
            yield from _files_below(start, seen, links)
        starts = sorted(links)


def _files_below(start: Path, seen: set[tuple[int, int]], links: list[Path]) -> Iterator[Path]:
    """The files below a folder that was not seen; the links to folders are added to `links` and not followed."""
    if not _is_new(start, seen):
        return
    for parent, folders, names in os.walk(start):
        shown = [Path(parent, name) for name in sorted(folders) if not name.startswith((".", "__MACOSX"))]
        links += [path for path in shown if path.is_symlink()]
        folders[:] = [path.name for path in shown if not path.is_symlink() and _is_new(path, seen)]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Add a folder to those seen; return whether it is new."""
    try:
        status = folder.stat()
    except OSError:  # a link to nothing
        return False
    identity = (status.st_dev, status.st_ino)
    is_new = identity not in seen
    seen.add(identity)
    return is_new


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
        path: a JPEG, PNG, WebP, BMP, GIF, TIFF, PNM, AVIF or, with pillow-heif, HEIF file; its content decides.

    Raises:
        UnreadablePicture: see `open_picture` and `decode_picture`.
    """
    with open_picture(path) as opened:
        return decode_picture(opened, str(path))


def open_picture(path: str | Path, content: bytes | None = None) -> Image.Image:
    """Read a picture's header; its size is known then, its pixels wait for `decode_picture`.

    Args:
        path: a file in a format of `load_picture`.
        content: what the file holds, where it is not a file of its own but part of an archive, say; `path` is then
            what messages call it.

    Raises:
        UnreadablePicture: the file is missing, empty, no picture, or has more than `MOST_PIXELS` or a side of more than
            `LONGEST_SIDE_PX`.
    """
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        size_bytes = Path(path).stat().st_size if content is None else len(content)
        opened = Image.open(path if content is None else io.BytesIO(content), formats=formats) if size_bytes else None
    except UnidentifiedImageError as error:
        raise UnreadablePicture(
            f"{path} is not a picture that can be read here. Expected {', '.join(formats)}.", "not an image"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadablePicture(f"{path} is too large: {error} Scale it down first.", "too large") from error
    except OSError as error:
        raise UnreadablePicture(f"{path} cannot be read: {error.strerror or error}.", "unreadable") from error
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        raise UnreadablePicture(f"{path} is damaged ({error}). Copy it again or remove it.", "not an image") from error
    if opened is None:
        raise UnreadablePicture(f"{path} is empty (0 bytes). Copy it again or remove it.", "empty")
    width, height = opened.size
    if width * height > MOST_PIXELS or max(width, height) > LONGEST_SIDE_PX:
        opened.close()
        raise UnreadablePicture(
            f"{path} is too large ({width:,} × {height:,} px). Expected at most {MOST_PIXELS / 1e6:.0f} megapixels and "
            f"{LONGEST_SIDE_PX:,} px a side: scale it down first.",
            "too large",
        )
    return opened


def decode_picture(opened: Image.Image, name: str) -> Picture:
    """The pixels of an opened picture as a person sees them.

    The EXIF orientation is applied, the first frame of an animation is taken, transparent parts are laid on
    white, and other color models are converted to RGB. 16-bit grey becomes 8-bit by its upper byte. So does 32-bit
    grey, unless it has values above 65,535: then by the upper byte of its largest value.

    Args:
        opened: from `open_picture`, or any other picture of Pillow's.
        name: what messages call it.

    Raises:
        UnreadablePicture: it is damaged, its pixels cannot become RGB, or memory is short.
    """
    try:
        opened.load()
    except MemoryError as error:
        raise _beyond_memory(opened, name) from error
    except Exception as error:  # Pillow's decoders raise whatever their parsers raise
        raise UnreadablePicture(
            f"{name} is truncated or damaged ({error}). Copy it again or remove it.", "truncated"
        ) from error
    try:
        upright = _upright(_rgb(opened), _orientation(opened))
        pixels = np.asarray(upright)
    except MemoryError as error:
        raise _beyond_memory(opened, name) from error
    except ValueError as error:
        raise UnreadablePicture(
            f"{name} has pixels that cannot become RGB ({error}). Save it as 8-bit RGB.", "of unsupported pixel type"
        ) from error
    return Picture(pixels, is_grey=opened.mode in _GREY_MODES)


def upright_size(opened: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture as `decode_picture` gives it; of most formats only the header is read."""
    width, height = opened.size
    is_turned = _UPRIGHT.get(_orientation(opened)) in _TURNED
    return (height, width) if is_turned else (width, height)


def jpeg(picture: Pixels, quality: int) -> bytes:
    """Encode uint8 RGB `[H, W, 3]` as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no defined white")
    if picture.mode.startswith("I"):  # Pillow's own conversion would clip at 255
        return Image.fromarray(_upper_byte(picture)).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _upper_byte(picture: Image.Image) -> Pixels:
    """Deep grey as uint8 `[H, W]`, in copies no deeper than its pixels."""
    deep = np.asarray(picture)
    if deep.dtype == np.int32:
        is_unsigned = getattr(picture, "tag_v2", {}).get(_TIFF_SAMPLE_FORMAT) == (_TIFF_UNSIGNED,)
        deep = deep.view(np.uint32) if is_unsigned else np.maximum(deep, 0)
    shift = max(8, int(deep.max(initial=0)).bit_length() - 8)
    return (deep >> shift).astype(np.uint8)


def _beyond_memory(opened: Image.Image, name: str) -> UnreadablePicture:
    width, height = opened.size
    return UnreadablePicture(
        f"{name} ({width:,} × {height:,} px) does not fit into the memory that is free. Scale it down first.",
        "too large",
    )


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block leaves a sound picture, which viewers show as it is stored
        return 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture

"""Samples of a tar file, located by its headers; images are read by offset without extraction."""

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from kdedge.data.samples import ImageSample, file_stamp
from kdedge.data.splits import UNLABELED
from kdedge_runtime.errors import DataError
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import IMAGE_SUFFIXES, UnreadableImage, open_image

__all__ = ["TarSample", "list_tar"]

_KEY_AND_SUFFIX = re.compile(r"((?:.*/)?[^./][^./]*)(\.[^/]*)")
"""As in WebDataset, the key ends at the first dot of the file name: `a.seg.png` is the `.seg.png` of `a`."""


@dataclass(frozen=True, slots=True)
class TarSample(ImageSample):
    """Image inside a tar file."""

    tar: str
    offset: int
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.name} in {self.tar}"

    def open(self) -> Image.Image:
        """Open the image; see `ImageSample.open`."""
        try:
            with Path(self.tar).open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size_bytes)
        except OSError as error:
            raise UnreadableImage(f"{self} cannot be read: {error.strerror or error}.", "unreadable") from error
        return open_image(str(self), content)

    def stamp(self) -> str:
        """Return the stamp of the tar file with offset and size; see `StoredSample.stamp`."""
        return f"{file_stamp(self.tar)} {self.offset} {self.size_bytes}"


def list_tar(path: Path, name: str) -> list[tuple[TarSample, int]]:
    """Locate the images in a tar file and their classes.

    Args:
        path: uncompressed tar file.
        name: prefix of the sample names.

    Returns:
        The samples in file order, each with the integer from its `.cls`, or `UNLABELED` without one.

    Raises:
        DataError: the file is not a readable tar file, or a `.cls` is not an index.
    """
    images: dict[str, TarSample] = {}
    targets: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive, path.open("rb") as raw:
            for member in archive:
                parts = _KEY_AND_SUFFIX.fullmatch(member.name)
                if parts is None or not member.isreg():
                    continue
                key, suffix = parts[1], parts[2].lower()
                if suffix in IMAGE_SUFFIXES:
                    sample = TarSample(displayable(f"{name}/{member.name}"), str(path), member.offset_data, member.size)
                    images.setdefault(key, sample)
                elif suffix == ".cls":
                    raw.seek(member.offset_data)
                    targets[key] = _target(raw.read(member.size), f"{member.name} in {path}")
    except FileNotFoundError as error:
        raise DataError(f"There is no shard {path}. Check the pattern, or add the missing file.") from error
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"{path} cannot be read as a tar file ({error}). Copy it again; compressed shards must be "
            "decompressed first, for example with gunzip."
        ) from error
    return [(sample, targets.get(key, UNLABELED)) for key, sample in images.items()]


def _target(content: bytes, name: str) -> int:
    text = content.decode("utf-8", "replace").strip()
    if not text.isdecimal():
        raise DataError(f"{name} contains {text[:20]!r}. Expected a class index as text, such as 3.")
    return int(text)

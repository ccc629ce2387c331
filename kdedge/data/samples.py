"""Samples of a dataset, independent of its storage."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kdedge_runtime.modalities import InputSpec, Sample
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import decode_image, open_image

__all__ = ["FileSample", "ImageSample", "LoadedSample", "StoredSample", "file_stamp"]


@dataclass(frozen=True)
class LoadedSample:
    """Raw sample in memory."""

    values: Sample
    """Raw sample, as `InputSpec.preprocess` takes it; images are uint8 RGB `[H, W, 3]`."""
    conversion: str | None = None
    """Conversion of an unusual file, which reports count, such as `grayscale, read as RGB`; None without one."""


@dataclass(frozen=True, slots=True)
class StoredSample(ABC):
    """Sample that can be read repeatedly, from any thread or process."""

    name: str
    """Path within the dataset, such as `train/cat/1.jpg`, unique and equal on every machine.

    It is shown in reports, and is the default of `key`. `str(sample)` is the location on this machine.
    """

    def for_input(self, spec: InputSpec) -> "Sequence[StoredSample]":
        """Return the samples that are read for an input: the windows of a recording, or by default this one."""
        return (self,)

    @property
    def cut_from(self) -> str | None:
        """Location of the stored sample that this is a window of; None for a whole one, the default."""
        return None

    @property
    def key(self) -> str:
        """Text whose hash determines splits and subsets; the name by default."""
        return self.name

    @abstractmethod
    def read(self) -> LoadedSample:
        """Decode the sample.

        Raises:
            UnreadableSample: the sample does not exist or is damaged.
        """

    def digest(self, values: Sample) -> bytes:
        """Return a SHA-256 of what a model receives of the sample, by which copies are recognized.

        Args:
            values: the decoded sample, `read().values`.
        """
        digest = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
        return digest.digest()

    @abstractmethod
    def stamp(self) -> str:
        """Return a string that changes with the stored sample, as far as possible without reading it."""


@dataclass(frozen=True, slots=True)
class ImageSample(StoredSample):
    """Image that can be opened repeatedly."""

    @abstractmethod
    def open(self) -> Image.Image:
        """Open the image and read its header; pixels may be read later.

        Raises:
            UnreadableImage: the image does not exist or is not an image.
        """

    def read(self) -> LoadedSample:
        """Decode the image; see `StoredSample.read`."""
        with self.open() as opened:
            decoded = decode_image(opened, str(self))
        return LoadedSample(decoded.pixels, "grayscale, read as RGB" if decoded.is_gray else None)


@dataclass(frozen=True, slots=True)
class FileSample(ImageSample):
    """Image stored as a file."""

    path: str

    @classmethod
    def below(cls, root: Path, path: Path) -> "FileSample":
        """Create a sample for `path`, named relative to `root`."""
        return cls(displayable(path.relative_to(root).as_posix()), str(path))

    def __str__(self) -> str:
        return self.path

    def open(self) -> Image.Image:
        """Open the image; see `ImageSample.open`."""
        return open_image(self.path)

    def stamp(self) -> str:
        """Return size and modification time; see `StoredSample.stamp`."""
        return file_stamp(self.path)


def file_stamp(path: str) -> str:
    """Return size and modification time of a file, or an empty string if it does not exist."""
    try:
        stat = Path(path).stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"

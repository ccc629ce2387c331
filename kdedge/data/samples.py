"""Image of a dataset, independent of its storage."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import DecodedImage, decode_image, open_image

__all__ = ["FileSample", "Sample", "file_stamp"]


@dataclass(frozen=True, slots=True)
class Sample(ABC):
    """Image that can be opened repeatedly, from any thread or process."""

    name: str
    """Path within the dataset, such as `train/cat/1.jpg`, unique and equal on every machine.

    It determines splits and subsets, and is shown in reports. `str(sample)` is the location on this machine.
    """

    @abstractmethod
    def open(self) -> Image.Image:
        """Open the image and read its header; pixels may be read later.

        Raises:
            UnreadableImage: the image does not exist or is not an image.
        """

    @abstractmethod
    def stamp(self) -> str:
        """Return a string that changes with the stored image, as far as possible without reading it."""

    def read(self) -> DecodedImage:
        """Decode the image.

        Raises:
            UnreadableImage: the image does not exist or is damaged.
        """
        with self.open() as opened:
            return decode_image(opened, str(self))


@dataclass(frozen=True, slots=True)
class FileSample(Sample):
    """Image stored as a file."""

    path: str

    @classmethod
    def below(cls, root: Path, path: Path) -> "FileSample":
        """Create a sample for `path`, named relative to `root`."""
        return cls(displayable(path.relative_to(root).as_posix()), str(path))

    def __str__(self) -> str:
        return self.path

    def open(self) -> Image.Image:
        """Open the image; see `Sample.open`."""
        return open_image(self.path)

    def stamp(self) -> str:
        """Return size and modification time; see `Sample.stamp`."""
        return file_stamp(self.path)


def file_stamp(path: str) -> str:
    """Return size and modification time of a file, or an empty string if it does not exist."""
    try:
        stat = Path(path).stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"

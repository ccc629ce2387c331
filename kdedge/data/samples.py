"""One picture of a data set, wherever it is stored."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from kdedge_runtime.util.files import written
from kdedge_runtime.util.images import Picture, decode_picture, open_picture

__all__ = ["FileSample", "Sample", "file_stamp"]


@dataclass(frozen=True, slots=True)
class Sample(ABC):
    """A picture that can be opened again and again, from any thread or process."""

    name: str
    """Where it is in its data set, such as `train/cat/1.jpg`: unique there, and the same on every machine. Sides are
    divided and subsets drawn by it, and reports show it. `str(sample)` says where it is on this machine."""

    @abstractmethod
    def open(self) -> Image.Image:
        """Read the header; pixels may follow later.

        Raises:
            UnreadablePicture: there is no picture.
        """

    @abstractmethod
    def stamp(self) -> str:
        """What changes when the stored picture does, as far as can be told without reading it."""

    def read(self) -> Picture:
        """Decode the picture.

        Raises:
            UnreadablePicture: there is no picture, or it is damaged.
        """
        with self.open() as opened:
            return decode_picture(opened, str(self))


@dataclass(frozen=True, slots=True)
class FileSample(Sample):
    """A picture in a file of its own."""

    path: str

    @classmethod
    def below(cls, root: Path, path: Path) -> "FileSample":
        """The sample at `path`, named after its place below `root`."""
        return cls(written(path.relative_to(root).as_posix()), str(path))

    def __str__(self) -> str:
        return self.path

    def open(self) -> Image.Image:
        """See `Sample.open`."""
        return open_picture(self.path)

    def stamp(self) -> str:
        """See `Sample.stamp`."""
        return file_stamp(self.path)


def file_stamp(path: str) -> str:
    """Size and time of change of a file; nothing for one that is not there."""
    try:
        stat = Path(path).stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"

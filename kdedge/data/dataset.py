"""A whole data set in memory, and the size of its pictures."""

from dataclasses import dataclass
from statistics import median

from PIL import Image

from kdedge.data.decode import Decoded, Progress, decode
from kdedge.data.folder import ImageFolder
from kdedge.data.problems import Problems
from kdedge.data.split import Split
from kdedge_runtime.errors import DataError
from kdedge_runtime.metadata import ImageInput

__all__ = ["Dataset", "load", "typical_size"]


@dataclass(frozen=True)
class Dataset:
    """Decoded pictures of both sides."""

    labels: tuple[str, ...]
    train: Decoded
    val: Decoded
    fingerprint: str
    """That of the folder, see `ImageFolder.fingerprint`."""
    problems: Problems
    """Of both sides and of the folder: print it once if it is true."""


def load(
    folder: ImageFolder, spec: ImageInput, *, workers: int | None = None, progress: Progress | None = None
) -> Dataset:
    """Decode all pictures of a folder at the model's size.

    Args:
        folder: from `kdedge.data.scan`, possibly thinned out by `kdedge.data.subset`.
        spec: the model's input.
        workers: decoding threads; None takes one a core, eight at most.
        progress: called with (done, total) over both sides.

    Raises:
        DataError: no readable picture is left of a class, or none at all for validation.
    """
    if not len(folder.val):
        raise DataError(f"{folder.root} has one image a class, so none is left for validation. Expected two or more.")
    total = len(folder.train) + len(folder.val)

    def shifted(start: int) -> Progress | None:
        return (lambda done, _: progress(start + done, total)) if progress else None

    train = decode(folder.train, spec, workers=workers, progress=shifted(0))
    val = decode(folder.val, spec, workers=workers, progress=shifted(len(folder.train)))
    problems = Problems(len(folder.skipped), folder.skipped) + train.problems + val.problems
    for side, split, decoded in (("training", folder.train, train), ("validation", folder.val, val)):
        lost = sorted(set(split.targets) - set(decoded.targets.tolist()))
        if lost:
            names = ", ".join(repr(folder.labels[target]) if folder.labels else "unknown" for target in lost)
            raise DataError(
                f"No {side} image of class {names} in {folder.root} can be read ({problems}). "
                "Replace the damaged files."
            )
    return Dataset(folder.labels, train, val, folder.fingerprint, problems)


def typical_size(split: Split, sample: int = 200) -> int:
    """The median shorter side, in px, of evenly spaced pictures; only their headers are read.

    Raises:
        DataError: none of the sampled files is a picture.
    """
    step = max(1, len(split) // sample)
    sides = []
    for path in split.paths[::step]:
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except Exception:  # Pillow's parsers raise whatever they stumble over; `decode` reports bad files
            continue
    if not sides:
        raise DataError(f"None of {len(split):,} image files can be read, {split.paths[0]} for one.")
    return round(median(sides))

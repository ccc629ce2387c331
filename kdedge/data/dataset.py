"""A whole data set in memory, and the size of its pictures."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from kdedge.data.dataset_index import Collection
from kdedge.data.decoding import Decoded, Progress, decode, readable
from kdedge.data.splits import Split
from kdedge.data.unreadable_files import Problems
from kdedge_runtime.errors import DataError
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.util.images import UnreadablePicture

__all__ = ["Dataset", "load", "load_validation", "readable_validation", "typical_size"]


@dataclass(frozen=True)
class Dataset:
    """Decoded pictures to train on and to validate with."""

    labels: tuple[str, ...]
    train: Decoded
    val: Decoded
    fingerprint: str
    """See `Collection.fingerprint`."""
    problems: Problems
    """Of both sides and of the whole collection: print it once if it is true."""


def load(
    collection: Collection, spec: ImageInput, *, workers: int | None = None, progress: Progress | None = None
) -> Dataset:
    """Decode the training and validation pictures at the model's size; those for testing wait for the very end.

    Args:
        collection: from `kdedge.data.scan`, possibly thinned out by `kdedge.data.subset`.
        spec: the model's input.
        workers: decoding threads; None takes one a core, eight at most.
        progress: called with (done, total) over both sides.

    Raises:
        DataError: no readable picture is left of a class, or none at all for validation.
    """
    total = len(collection.train) + len(collection.val)

    def shifted(start: int) -> Progress | None:
        return (lambda done, _: progress(start + done, total)) if progress else None

    val = load_validation(collection, spec, workers=workers, progress=shifted(0))
    train = decode(collection.train, spec, workers=workers, progress=shifted(len(collection.val)))
    _require_all_classes(collection, "training", collection.train, train.targets.tolist(), train.problems)
    problems = Problems(len(collection.skipped), collection.skipped) + train.problems + val.problems
    return Dataset(collection.labels, train, val, collection.fingerprint, problems)


def load_validation(
    collection: Collection, spec: ImageInput, *, workers: int | None = None, progress: Progress | None = None
) -> Decoded:
    """Decode the validation pictures alone.

    Raises:
        DataError: there are none, or no readable picture is left of a class.
    """
    if not len(collection.val):
        raise DataError(
            f"{collection.source} has one image a class, so none is left for validation. Expected two or more."
        )
    val = decode(collection.val, spec, workers=workers, progress=progress)
    _require_all_classes(collection, "validation", collection.val, val.targets.tolist(), val.problems)
    return val


def readable_validation(collection: Collection, *, progress: Progress | None = None) -> tuple[Split, Problems]:
    """The validation pictures that can be read, and what is wrong with the others; nothing is kept of them.

    Raises:
        DataError: no readable picture is left of a class.
    """
    side, problems = readable(collection.val, progress=progress)
    _require_all_classes(collection, "validation", collection.val, side.targets, problems)
    return side, problems


def _require_all_classes(
    collection: Collection, side: str, split: Split, found: Iterable[int], problems: Problems
) -> None:
    lost = sorted(set(split.targets) - set(found))
    if lost:
        names = ", ".join(repr(collection.labels[target]) if collection.labels else "unknown" for target in lost)
        raise DataError(
            f"No {side} image of class {names} in {collection.source} can be read ({problems}). "
            "Replace the damaged files."
        )


def typical_size(split: Split, count: int = 200) -> int:
    """The median shorter side, in px, of evenly spaced pictures; only their headers are read.

    Raises:
        DataError: none of the sampled pictures can be read.
    """
    step = max(1, len(split) // count)
    sides = []
    for sample in split.samples[::step]:
        try:
            with sample.open() as image:
                sides.append(min(image.size))
        except UnreadablePicture:  # `decode` reports it
            continue
    if not sides:
        raise DataError(f"None of {len(split):,} image files can be read, {split.samples[0]} for one.")
    return round(median(sides))

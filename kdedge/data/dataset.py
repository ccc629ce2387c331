"""In-memory dataset, and the typical image size."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.decoding import DecodedSamples, decode, readable
from kdedge.data.samples import ImageSample
from kdedge.data.skipped_samples import SkippedSamples
from kdedge.data.splits import UNLABELED, Split
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.images import UnreadableImage
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["Dataset", "load", "load_validation", "readable_validation", "typical_size"]


@dataclass(frozen=True)
class Dataset:
    """Decoded training and validation samples."""

    labels: tuple[str, ...]
    train: DecodedSamples
    val: DecodedSamples
    fingerprint: str
    """Fingerprint, see `DatasetIndex.fingerprint`."""
    problems: SkippedSamples
    """Unreadable samples and skipped files of both splits; print it once if it is true."""


def load(
    dataset: DatasetIndex, spec: InputSpec, *, workers: int | None = None, progress: ProgressCallback = no_progress
) -> Dataset:
    """Decode the training and validation samples; test samples are not read.

    Args:
        dataset: dataset index from `kdedge.data.index_dataset`, optionally reduced by `kdedge.data.subset`.
        spec: input of the model.
        workers: number of decoding threads; None takes one per core, at most eight.
        progress: called after every sample, with the total of both splits.

    Raises:
        DataError: A class has no readable samples, or the validation split has none.
    """
    total = len(dataset.train) + len(dataset.val)

    def shifted(start: int) -> ProgressCallback:
        return lambda step, done, _: progress(step, start + done, total)

    val = load_validation(dataset, spec, workers=workers, progress=shifted(0))
    train = decode(dataset.train, spec, workers=workers, progress=shifted(len(dataset.val)))
    _require_all_classes(dataset, "training", dataset.train, train.targets.tolist(), train.problems)
    problems = SkippedSamples(len(dataset.skipped), dataset.skipped) + train.problems + val.problems
    return Dataset(dataset.labels, train, val, dataset.fingerprint, problems)


def load_validation(
    dataset: DatasetIndex, spec: InputSpec, *, workers: int | None = None, progress: ProgressCallback = no_progress
) -> DecodedSamples:
    """Decode the validation samples.

    Raises:
        DataError: there are none, or a class has no readable samples.
    """
    if not len(dataset.val):
        raise DataError(
            f"{dataset.source} has one sample per class, so none is left for validation. Expected two or more."
        )
    val = decode(dataset.val, spec, workers=workers, progress=progress)
    _require_all_classes(dataset, "validation", dataset.val, val.targets.tolist(), val.problems)
    return val


def readable_validation(
    dataset: DatasetIndex, spec: InputSpec, *, progress: ProgressCallback = no_progress
) -> tuple[Split, SkippedSamples]:
    """Return the readable validation samples and a report on the others, without keeping them.

    Raises:
        DataError: A class has no readable samples.
    """
    side, problems = readable(dataset.val, spec, progress=progress)
    _require_all_classes(dataset, "validation", dataset.val, side.targets, problems)
    return side, problems


def _require_all_classes(
    dataset: DatasetIndex, side: str, split: Split, found: Iterable[float], problems: SkippedSamples
) -> None:
    if not TASKS[dataset.task].has_classes:
        return
    lost = sorted(set(split.targets) - set(found))
    if UNLABELED in lost:
        raise _none_usable(split, problems)
    if lost:
        names = ", ".join(repr(dataset.labels[int(target)]) for target in lost)
        raise DataError(
            f"No {side} sample of class {names} in {dataset.source} can be read ({problems}). "
            "Replace the damaged files."
        )


def _none_usable(split: Split, problems: SkippedSamples) -> DataError:
    """Return the error for unlabeled samples that can be read, but not used at the input of the model."""
    unlabeled = [sample for sample, target in zip(split.samples, split.targets, strict=True) if target == UNLABELED]
    names = {sample.name for sample in unlabeled}
    own = tuple(each for each in problems.skipped if not names.isdisjoint({each.name, each.name.rpartition("#")[0]}))
    return DataError(
        f"None of the unlabeled samples can be used, such as {unlabeled[0]} ({SkippedSamples(len(own), own)}). "
        "Replace the files."
    )


def typical_size(split: Split, count: int = 200) -> int:
    """Return the median shorter side in px of evenly spaced images, from their headers.

    Raises:
        DataError: None of the sampled images can be read.
    """
    step = max(1, len(split) // count)
    sides = []
    for sample in split.samples[::step]:
        try:
            assert isinstance(sample, ImageSample)
            with sample.open() as image:
                sides.append(min(image.size))
        except UnreadableImage:  # `decode` reports it
            continue
    if not sides:
        raise DataError(f"None of {len(split):,} image files can be read, such as {split.samples[0]}.")
    return round(median(sides))

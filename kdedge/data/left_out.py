"""Classes that a run leaves out, whose samples show how it treats what it does not know."""

from collections.abc import Sequence
from dataclasses import replace

from kdedge.data.dataset_index import DatasetIndex, fingerprint_of
from kdedge.data.splits import UNLABELED, Split
from kdedge_runtime.errors import UsageError
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.class_hint import class_hint

__all__ = ["check_left_out", "leave_out", "left_out_samples"]

_FEWEST = 2
"""Minimum number of remaining classes."""


def check_left_out(dataset: DatasetIndex, classes: Sequence[str]) -> None:
    """Raise unless these classes can be left out.

    Raises:
        UsageError: the dataset has no classes or not these, or fewer than two remain.
    """
    if not TASKS[dataset.task].has_classes or not dataset.labels:
        raise UsageError(f"--leave-out needs a dataset with classes, but {dataset.source} has none. Remove it.")
    for name in classes:
        if name not in dataset.labels:
            hint = class_hint(name, dataset.labels)
            raise UsageError(f"--leave-out {name}: {dataset.source} has no such class.{hint}")
    remaining = len(set(dataset.labels) - set(classes))
    if remaining < _FEWEST:
        raise UsageError(
            f"--leave-out leaves {remaining} of {len(dataset.labels)} classes, but a classifier needs at least "
            f"{_FEWEST}. Leave out fewer classes."
        )


def leave_out(dataset: DatasetIndex, classes: Sequence[str]) -> DatasetIndex:
    """Remove classes from all splits of a dataset; names that it does not have are ignored."""
    if not set(classes) & set(dataset.labels):
        return dataset
    labels = tuple(label for label in dataset.labels if label not in classes)
    numbers = {dataset.labels.index(label): number for number, label in enumerate(labels)}

    def remaining(split: Split) -> Split:
        kept = split.take(at for at, target in enumerate(split.targets) if target in numbers)
        return Split(kept.samples, tuple(numbers[int(target)] for target in kept.targets))

    splits = [split for split in (dataset.train, dataset.val, dataset.test) if split is not None]
    removed = [sample for split in splits for sample, target in split.pairs() if target not in numbers]
    return replace(
        dataset,
        labels=labels,
        left_out=Split(tuple(removed), (UNLABELED,) * len(removed)),
        train=remaining(dataset.train),
        val=remaining(dataset.val),
        test=None if dataset.test is None else remaining(dataset.test),
        fingerprint=fingerprint_of([dataset.fingerprint, *sorted(set(classes))]),
    )


def left_out_samples(dataset: DatasetIndex, classes: Sequence[str]) -> Split:
    """Return the validation samples of classes, without targets."""
    left_out = {number for number, label in enumerate(dataset.labels) if label in classes}
    split = dataset.val.take(at for at, target in enumerate(dataset.val.targets) if target in left_out)
    return Split(split.samples, (UNLABELED,) * len(split))

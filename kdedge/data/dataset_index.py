"""Dataset index: samples with their classes and splits, before any sample is opened."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Literal, TypeAlias

from kdedge.data.grouping import GroupOf, group_split
from kdedge.data.skipped_samples import SkippedSample
from kdedge.data.splits import UNLABELED, Split, hash_split, lowest_ranked
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.files import displayable

__all__ = ["TORCHVISION", "DatasetIndex", "Divider", "divided", "fingerprint_of", "source_name", "subset"]

TORCHVISION = "torchvision:"
"""Prefix of torchvision dataset locations."""

Divider: TypeAlias = Literal["folders", "shards", "official", "recordings", "hashed"]
"""Origin of the train/val split: the user's folders or shards, the official split, or a hash of recordings or
names."""


@dataclass(frozen=True)
class DatasetIndex:
    """Index of a dataset: classes and splits of all samples."""

    source: str
    """Location given to `kdedge.data.index_dataset`, with absolute paths."""
    labels: tuple[str, ...]
    """Class names; empty for samples without classes."""
    train: Split
    val: Split
    test: Split | None
    """Test samples, if the user or publisher has set some aside."""
    split: Divider
    fingerprint: str
    """SHA-256 over properties that identify the dataset without opening samples, over all splits, hexadecimal."""
    modality: str = "image"
    """Modality of the samples, a key of `kdedge.modalities.TRAINING_MODALITIES`."""
    task: str = "classify"
    """Task of the targets, a key of `kdedge.tasks.TRAINING_TASKS`."""
    skipped: tuple[SkippedSample, ...] = ()
    """Files that may be intended as samples but are not used."""
    left_out: Split = field(default_factory=Split)
    """Samples of classes to train without; their copies among unlabeled samples are not used either."""
    unfamiliar: tuple[str, ...] = ()
    """Folders of samples that belong to no class, with absolute paths."""
    is_footage: bool = False
    """True for consecutive frames without classes, which may be near-duplicates."""
    columns: tuple[str, ...] = ()
    """Names of the columns of every sample, in their order; empty for samples without names."""
    target: str | None = None
    """Title of the target column; None for samples without columns."""
    schema: str | None = None
    """SHA-256 of the class order and of the kinds and categories of columns, hexadecimal; None without a schema."""
    group_of: GroupOf | None = field(default=None, compare=False)
    """Function of a sample's name to the file that it was cut from; None if every sample stands alone."""
    check_input: Callable[[InputSpec], None] | None = field(default=None, compare=False)
    """Function that raises `UsageError` for the input of a model that differs otherwise, such as in units."""

    @property
    def samples(self) -> int:
        """Number of samples in all splits and of those that are not used."""
        return sum(len(split) for split in (self.train, self.val, self.test or ())) + len(self.skipped)

    @property
    def is_unlabeled(self) -> bool:
        """True if the samples have no ground truth."""
        return not self.labels and bool(len(self.train)) and set(self.train.targets) == {UNLABELED}

    def require(self, spec: InputSpec, task: str, name: str) -> None:
        """Raise unless a model takes these samples and has their task; all tasks with classes share their data.

        Args:
            spec: input of the model.
            task: task of the model.
            name: name of the model in the error, such as `The teacher runs/a`.

        Raises:
            UsageError: modality, task or the columns of samples differ, or their rate or units.
        """
        if spec.kind != self.modality:
            raise UsageError(
                f"{name} takes {spec.kind} samples, but {self.source} has {self.modality} samples. Expected a model "
                "and data of the same modality."
            )
        has_same_targets = task == self.task or all(TASKS[each].has_classes for each in (task, self.task))
        if not has_same_targets:
            raise UsageError(
                f"{name} predicts {_targets(task)}, but the targets of {self.source} are {_targets(self.task)}. "
                "Expected a model and data with the same kind of targets."
            )
        if self.columns and spec.column_names and self.columns != spec.column_names:
            raise UsageError(
                f"{name} takes the columns {', '.join(spec.column_names)}, but {self.source} has "
                f"{', '.join(self.columns)}. Expected the same columns in the same order."
            )
        if self.check_input is not None:
            self.check_input(spec)

    @property
    def name(self) -> str:
        """Display name in reports."""
        return source_name(self.source)


def _targets(task: str) -> str:
    """Return the kind of targets of a task for an error message."""
    return "numbers" if TASKS[task].has_values else "classes"


def source_name(source: str) -> str:
    """Return the short name of a dataset: of its folder, its shards, or the published dataset."""
    if source.startswith(TORCHVISION):
        return source.split(":")[1]
    path = PurePath(source.partition("::")[0])
    # Frigate's folder of classes: the model is the folder above.
    return displayable(path.parent.name if path.name == "dataset" and path.parent.name else path.name)


def divided(dataset: DatasetIndex, *, val_fraction: float, seed: int, group_of: GroupOf | None = None) -> DatasetIndex:
    """Split validation samples from the training split by a hash of each name; the test split is unchanged.

    Samples with the same value of `group_of` stay together.
    """
    if group_of is None:
        train, val = hash_split(dataset.train, val_fraction=val_fraction, seed=seed)
    else:
        train, val = group_split(dataset.train, group_of, val_fraction=val_fraction, seed=seed)
    return replace(dataset, train=train, val=val, split="hashed")


def subset(dataset: DatasetIndex, per_class: int, *, seed: int = 0) -> DatasetIndex:
    """Keep at most `per_class` training samples of each class; the other splits are unchanged.

    The selection depends only on the names and the seed. A smaller selection is part of a larger one.

    Raises:
        UsageError: `per_class` is less than 1.
    """
    if per_class < 1:
        raise UsageError(f"--samples-per-class must be at least 1; got {per_class}.")
    return replace(dataset, train=lowest_ranked(dataset.train, per_class=per_class, seed=seed))


def fingerprint_of(entries: Iterable[str]) -> str:
    """Compute the SHA-256 over entries, one per sample, in any order."""
    return hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()

"""Unlabeled samples that join a dataset: those of a request, or a dataset without labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdedge.config.recipe_file import Recipe
from kdedge.config.train_config import EVERY_S, TrainConfig
from kdedge.data import UNLABELED, DatasetIndex, Split
from kdedge.data.splits import hash_split
from kdedge.data.unlabeled import UnlabeledSelection, UnlabeledSource, select_unlabeled
from kdedge.losses import LOSS_TERMS
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.tasks import TRAINING_TASKS
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["UnlabeledPart", "add_unlabeled", "check_unlabeled_request", "list_unlabeled"]

_VAL_FRACTION, _SEED = 0.2, 0
"""As in `kdedge.data.index_dataset`, so that every sample keeps its split."""


@dataclass(frozen=True)
class UnlabeledPart:
    """Unlabeled part of a training split."""

    locations: tuple[str, ...]
    """Locations besides the dataset, with absolute paths; empty for a dataset without labels."""
    every_s: float
    """Interval between video frames in seconds."""
    selection: UnlabeledSelection

    @property
    def record(self) -> dict[str, Any]:
        """Entry of `run.json`, from which a resumed run finds the same samples."""
        return {
            "locations": list(self.locations),
            "every_s": self.every_s,
            "samples": len(self.selection.samples),
            "fingerprint": self.selection.fingerprint,
        }


def check_unlabeled_request(request: TrainConfig, dataset: DatasetIndex, recipe: Recipe) -> None:
    """Raise if samples without labels cannot be used, before any is read.

    Raises:
        UsageError: the task needs labels, no loss term uses the teacher, or options contradict each other.
    """
    if not request.unlabeled and not dataset.is_unlabeled:
        return
    where = request.unlabeled[0] if request.unlabeled else dataset.source
    if not TRAINING_TASKS[dataset.task].accepts_unlabeled:
        raise UsageError(
            f"The task {dataset.task} needs the label of every sample, but {where} has none. Remove --unlabeled."
        )
    if not any(LOSS_TERMS[name].needs_teacher for name in recipe.loss.weights):
        raise UsageError(
            f"The loss {','.join(recipe.loss.weights)} does not use the teacher, so nothing can be learned from "
            f"{where}. Add a term that compares predictions: --loss ce:0.1,kd:0.9."
        )
    if dataset.is_unlabeled and request.unlabeled:
        raise UsageError(
            f"{dataset.source} has no class folders, so --unlabeled adds nothing else. Put all samples into one "
            "folder, or give labeled samples as DATA."
        )


def add_unlabeled(
    dataset: DatasetIndex, locations: Sequence[str], every_s: float | None, progress: ProgressCallback
) -> tuple[DatasetIndex, UnlabeledPart | None]:
    """Add unlabeled samples after the labeled training samples; a dataset without labels is freed of duplicates.

    Args:
        dataset: dataset index.
        locations: locations of unlabeled samples.
        every_s: interval between video frames in seconds; None takes `EVERY_S`.
        progress: called while samples are compared.

    Returns:
        The dataset, and its unlabeled part; None if all samples have labels.

    Raises:
        UsageError: A location holds samples of another modality.
        DataError: A location has no readable sample, or no sample adds anything.
    """
    interval = EVERY_S if every_s is None else every_s
    if not locations and not dataset.is_unlabeled:
        return dataset, None
    train, val, test = dataset.train, dataset.val, dataset.test or Split()
    held_out = [val, test, dataset.left_out]
    sources = [source for location in locations for source in list_unlabeled(location, dataset, interval)]
    names = tuple(dict.fromkeys(source.location for source in sources))
    is_divided = dataset.is_unlabeled and dataset.split == "hashed"
    if dataset.is_unlabeled:
        own = train.samples
        if is_divided:  # duplicates are removed before the split, so that none is on both sides
            own, held_out = tuple(sorted((*own, *val.samples), key=lambda sample: sample.name)), [test]
        sources, train = [UnlabeledSource(dataset.source, iter(own), len(own), dataset.is_footage)], Split()
    hasher = TRAINING_MODALITIES[dataset.modality].perceptual_hash
    selection = select_unlabeled(sources, hasher, train=train, held_out=held_out, progress=progress)
    part = UnlabeledPart(names, interval, selection)
    added = Split(selection.samples, (UNLABELED,) * len(selection.samples))
    if is_divided:
        added, val = hash_split(added, val_fraction=_VAL_FRACTION, seed=_SEED)
        if not len(val):
            raise DataError(
                f"Only one sample of {dataset.source} is readable and no duplicate, so none is left for validation. "
                "Expected two or more."
            )
        return replace(dataset, train=added, val=val), part
    joined = Split((*train.samples, *added.samples), (*map(int, train.targets), *map(int, added.targets)))
    return replace(dataset, train=joined), part


def list_unlabeled(location: str, dataset: DatasetIndex, every_s: float = EVERY_S) -> list[UnlabeledSource]:
    """List the samples of a location without their labels.

    Args:
        location: folder, file or pattern, see `TrainingModality.list_unlabeled`.
        dataset: dataset with samples of the same modality.
        every_s: interval between video frames in seconds.

    Raises:
        UsageError: the samples are of another modality, or it has no reader of unlabeled samples.
        DataError: the location does not exist, or has no samples.
    """
    modality = dataset.modality
    others = [kind for kind in TRAINING_MODALITIES if kind != modality and TRAINING_MODALITIES[kind].reads(location)]
    if others:
        raise UsageError(
            f"{location} has {others[0]} samples, but the dataset has {modality} samples. Expected samples of one kind."
        )
    return TRAINING_MODALITIES[modality].list_unlabeled(location, dataset, every_s=every_s)

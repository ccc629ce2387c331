"""Splits and subsets by a hash of sample names: equal on every machine, stable when files are added."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kdedge.data.samples import StoredSample
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.arrays import Targets, evenly_spaced

__all__ = ["UNLABELED", "Split", "by_target", "hash_split", "lowest_ranked", "rank"]

UNLABELED = -1
"""Target of a sample whose class is unknown."""


@dataclass(frozen=True)
class Split:
    """Samples with their classes."""

    samples: tuple[StoredSample, ...] = ()
    targets: tuple[int, ...] | tuple[float, ...] = ()
    """Ground truth as the task of the dataset encodes it: for classification class indices, or `UNLABELED`."""

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.targets):
            raise ValueError(f"{len(self.samples)} samples but {len(self.targets)} targets")

    @property
    def target_array(self) -> Targets:
        """Ground truth as an array: int64 `[N]` for whole numbers, else float32 `[N]`."""
        is_whole = all(isinstance(target, int) for target in self.targets)
        return np.array(self.targets, dtype=np.int64 if is_whole else np.float32)

    def __len__(self) -> int:
        return len(self.samples)

    def for_input(self, spec: InputSpec) -> "Split":
        """Return the samples that are read for an input, with the ground truth of their recordings."""
        pairs = [(each, target) for sample, target in self.pairs() for each in sample.for_input(spec)]
        return Split(tuple(sample for sample, _ in pairs), tuple(target for _, target in pairs))

    def pairs(self) -> Iterator[tuple[StoredSample, float]]:
        """Iterate over pairs of sample and class."""
        return zip(self.samples, self.targets, strict=True)

    def thinned(self, most: int) -> "Split":
        """Select at most this many samples, evenly spaced."""
        return self.take(evenly_spaced(len(self), most).tolist())

    def __add__(self, other: "Split") -> "Split":
        """Return the samples of both splits, those of the other one last."""
        return Split(self.samples + other.samples, (*self.targets, *other.targets))

    def take(self, indices: Iterable[int]) -> "Split":
        """Select the samples at these indices, in this order."""
        chosen = list(indices)
        return Split(tuple(self.samples[i] for i in chosen), tuple(self.targets[i] for i in chosen))


def hash_split(split: Split, *, val_fraction: float, seed: int) -> tuple[Split, Split]:
    """Split samples into training and validation by a hash of each name, both in the original order.

    A sample's split depends only on its name, so adding files never moves the others. The exception is a class so small
    that one split would be empty: it receives the sample closest to the threshold.
    """
    ranks = _ranks(split, seed)
    train: list[int] = []
    val: list[int] = []
    for members in by_target(split):
        high = [index for index in members if ranks[index] >= val_fraction]
        low = [index for index in members if ranks[index] < val_fraction]
        if not low and len(high) > 1:
            nearest = min(high, key=ranks.__getitem__)
            high.remove(nearest)
            low.append(nearest)
        if not high and low:
            nearest = max(low, key=ranks.__getitem__)
            low.remove(nearest)
            high.append(nearest)
        train += high
        val += low
    return split.take(sorted(train)), split.take(sorted(val))


def lowest_ranked(split: Split, *, per_class: int, seed: int) -> Split:
    """Select at most `per_class` samples of each class by a hash of their names; smaller selections are nested."""
    ranks = _ranks(split, seed)
    drawn = [index for members in by_target(split) for index in sorted(members, key=ranks.__getitem__)[:per_class]]
    return split.take(sorted(drawn))


def by_target(split: Split) -> Iterable[list[int]]:
    """Return the indices of each class; targets that are not whole numbers form one class."""
    members: dict[int, list[int]] = {}
    for index, target in enumerate(split.targets):
        members.setdefault(target if isinstance(target, int) else 0, []).append(index)
    return members.values()


def _ranks(split: Split, seed: int) -> Sequence[float]:
    return [rank(f"{seed}/{sample.key}") for sample in split.samples]


def rank(name: str) -> float:
    """Hash a name to a uniform number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48

"""Choosing pictures by a hash of their names: equal on every machine, stable when files are added."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kdedge.data.samples import Sample

__all__ = ["UNLABELLED", "Split", "hashed_halves", "lowest_ranked"]

UNLABELLED = -1
"""The target of a picture whose class is unknown."""


@dataclass(frozen=True)
class Split:
    """Pictures and their classes, aligned."""

    samples: tuple[Sample, ...] = ()
    targets: tuple[int, ...] = ()
    """Index into the labels, or `UNLABELLED`."""

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.targets):
            raise ValueError(f"{len(self.samples)} samples but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.samples)

    def pairs(self) -> Iterator[tuple[Sample, int]]:
        """Each picture with its class."""
        return zip(self.samples, self.targets, strict=True)

    def take(self, indices: Iterable[int]) -> "Split":
        """The pictures at these places, in this order."""
        chosen = list(indices)
        return Split(tuple(self.samples[i] for i in chosen), tuple(self.targets[i] for i in chosen))


def hashed_halves(split: Split, *, val_fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide pictures into training and validation by a hash of each name, both in the order that they come in.

    A picture's side depends on its own name only, so adding files never moves the others; the exception is a
    class so small that one side would stay empty, which then gets the picture nearest to the border.
    """
    ranks = _ranks(split, seed)
    train: list[int] = []
    val: list[int] = []
    for members in _by_target(split):
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
    """At most so many pictures of each class, drawn by a hash of their names; a small draw is part of a larger one."""
    ranks = _ranks(split, seed)
    drawn = [index for members in _by_target(split) for index in sorted(members, key=ranks.__getitem__)[:per_class]]
    return split.take(sorted(drawn))


def _by_target(split: Split) -> Iterable[list[int]]:
    members: dict[int, list[int]] = {}
    for index, target in enumerate(split.targets):
        members.setdefault(target, []).append(index)
    return members.values()


def _ranks(split: Split, seed: int) -> Sequence[float]:
    return [_rank(f"{seed}/{sample.name}") for sample in split.samples]


def _rank(name: str) -> float:
    """A number in [0, 1) that looks random."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48

"""A data set before any picture is opened: what there is, of which class, on which side."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal, TypeAlias

from kdedge.data.splits import Split, hashed_halves, lowest_ranked
from kdedge.data.unreadable_files import Skipped
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.files import written

__all__ = ["TORCHVISION", "Collection", "Divider", "divided", "fingerprint_of", "source_name", "subset"]

TORCHVISION = "torchvision:"
"""How the source of a data set begins that torchvision knows by name."""

Divider: TypeAlias = Literal["folders", "shards", "official", "hashed"]
"""Who divided training from validation: the user's folders or shards, the data set's publisher, or a hash of names."""


@dataclass(frozen=True)
class Collection:
    """Which picture belongs to which class and to which side."""

    source: str
    """What `kdedge.data.scan` was given, with absolute paths, so that it can be found again from anywhere."""
    labels: tuple[str, ...]
    """Empty for pictures without classes."""
    train: Split
    val: Split
    test: Split | None
    """Pictures for the very end, where the user or the publisher has set some aside."""
    split: Divider
    fingerprint: str
    """sha256 over what tells two data sets apart without opening pictures, all sides included, as hex."""
    skipped: tuple[Skipped, ...] = ()
    """Files that might be meant as pictures but are not used."""

    @property
    def name(self) -> str:
        """What reports call it."""
        return source_name(self.source)


def source_name(source: str) -> str:
    """The short name of a data set: its folder's, its shards', or that of a published one."""
    if source.startswith(TORCHVISION):
        return source.split(":")[1]
    return written(PurePath(source.partition("::")[0]).name)


def divided(collection: Collection, *, val_fraction: float, seed: int) -> Collection:
    """Cut the validation side from the training side by a hash of each name; what is for testing stays untouched."""
    train, val = hashed_halves(collection.train, val_fraction=val_fraction, seed=seed)
    return replace(collection, train=train, val=val, split="hashed")


def subset(collection: Collection, per_class: int, *, seed: int = 0) -> Collection:
    """Keep at most `per_class` training pictures of each class; the other sides stay whole.

    The draw depends on the names and the seed only, and a smaller draw is part of a larger one.

    Raises:
        UsageError: `per_class` is less than 1.
    """
    if per_class < 1:
        raise UsageError(f"A class needs at least 1 training image, got {per_class} images a class.")
    return replace(collection, train=lowest_ranked(collection.train, per_class=per_class, seed=seed))


def fingerprint_of(entries: Iterable[str]) -> str:
    """sha256 over the entries, one a picture, whatever their order."""
    return hashlib.sha256("\n".join(sorted(entries)).encode()).hexdigest()

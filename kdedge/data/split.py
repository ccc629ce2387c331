"""Choosing pictures by a hash of their names: equal on every machine, stable when files are added."""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["UNLABELLED", "Split", "hashed_halves", "lowest_ranked", "stable_name"]

UNLABELLED = -1
"""The target of a picture whose class is unknown."""


@dataclass(frozen=True)
class Split:
    """Picture files and their classes, aligned."""

    paths: tuple[Path, ...]
    targets: tuple[int, ...]
    """Index into the labels, or `UNLABELLED`."""

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.targets):
            raise ValueError(f"{len(self.paths)} paths but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def of_classes(cls, classes: Mapping[int, Sequence[Path]]) -> "Split":
        """Concatenate the pictures of each target."""
        pairs = [(path, target) for target, paths in classes.items() for path in paths]
        return cls(tuple(path for path, _ in pairs), tuple(target for _, target in pairs))


def stable_name(path: Path, root: Path) -> str:
    """The name of `path` below `root`, equal on every system (macOS decomposes accents)."""
    return unicodedata.normalize("NFC", path.relative_to(root).as_posix())


def hashed_halves(
    paths: Sequence[Path], root: Path, *, val_fraction: float, seed: int
) -> tuple[list[Path], list[Path]]:
    """Divide the pictures of one class into training and validation by a hash of each name.

    A picture's side depends on its own name only, so adding files never moves the others; the exception is a
    class so small that one side would stay empty, which then gets the picture nearest to the border.
    """
    ranks = _ranks(paths, root, seed)
    train = [path for path in paths if ranks[path] >= val_fraction]
    val = [path for path in paths if ranks[path] < val_fraction]
    if not val and len(train) > 1:
        nearest = min(train, key=ranks.__getitem__)
        train.remove(nearest)
        val.append(nearest)
    if not train and val:
        nearest = max(val, key=ranks.__getitem__)
        val.remove(nearest)
        train.append(nearest)
    return train, val


def lowest_ranked(paths: Sequence[Path], root: Path, *, count: int, seed: int) -> list[Path]:
    """At most `count` of the paths, drawn by a hash of their names; a small draw is part of a larger one."""
    ranks = _ranks(paths, root, seed)
    return sorted(sorted(paths, key=ranks.__getitem__)[:count])


def _ranks(paths: Iterable[Path], root: Path, seed: int) -> Mapping[Path, float]:
    return {path: _rank(f"{seed}/{stable_name(path, root)}") for path in paths}


def _rank(name: str) -> float:
    """A number in [0, 1) that looks random."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48

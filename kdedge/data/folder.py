"""What a folder of labelled pictures holds, found without opening a picture.

Layouts:

```
DATA/train/CLASS/*.jpg  DATA/val/CLASS/*.jpg   `val` may also be called `valid`, `validation` or `test`
DATA/CLASS/*.jpg                               divided by a hash of each file's name
DATA/*.jpg                                     no classes: only with `unlabelled_ok`
```

A class folder may have folders of its own. Hidden files, tables and texts are left alone.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from kdedge.data.problems import Reason, Skipped
from kdedge.data.split import UNLABELLED, Split, hashed_halves, lowest_ranked, stable_name
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.pictures import is_picture

__all__ = ["ImageFolder", "scan", "subset"]

_TRAIN_NAMES = ("train", "training")
_VAL_NAMES = ("val", "valid", "validation", "test")
"""In the order of preference, where a folder has several."""
_COMPANION_SUFFIXES = frozenset(
    {".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".npy", ".npz", ".parquet", ".pdf"}
    | {".pkl", ".py", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
)
_COMPANION_NAMES = frozenset({"license", "licence", "readme", "notice", "copying", "makefile"})
_ARCHIVE_COMMANDS = {".zip": "unzip {0}", ".tar": "tar -xf {0}", ".tgz": "tar -xf {0}", ".gz": "tar -xf {0}"}
_ByTarget: TypeAlias = dict[int, list[Path]]
_EXPECTED = "Expected one folder of pictures a class, or train/ and val/ with such folders inside."


@dataclass(frozen=True)
class ImageFolder:
    """Which picture belongs to which class and to which side."""

    root: Path
    labels: tuple[str, ...]
    """Sorted names of the class folders; empty for pictures without classes."""
    train: Split
    val: Split
    split: Literal["folders", "hashed"]
    """Who divided training from validation: the user's folders, or a hash of the file names."""
    fingerprint: str
    """sha256 over the names and byte sizes of the pictures, as hex: two equal folders have the same one."""
    skipped: tuple[Skipped, ...] = ()
    """Files that might be meant as pictures but are not used."""


@dataclass(frozen=True)
class _Listing:
    """The pictures directly in a folder and those in each of its class folders."""

    folder: Path
    classes: dict[str, list[Path]]
    loose: list[Path]
    unknown: list[Path]

    @property
    def pictures(self) -> list[Path]:
        return [path for paths in self.classes.values() for path in paths] + self.loose

    @property
    def is_flat(self) -> bool:
        return bool(self.loose) and not any(self.classes.values())

    def by_target(self, labels: Sequence[str]) -> _ByTarget:
        """Pictures by index of their class; without labels all are `UNLABELLED`."""
        return {index: self.classes[name] for index, name in enumerate(labels)} or {UNLABELLED: self.loose}


def scan(root: str | Path, *, val_fraction: float = 0.2, seed: int = 0, unlabelled_ok: bool = False) -> ImageFolder:
    """List a data set; no picture is opened.

    Where the user has not divided the pictures, the hash of its name sends each to one side. Frames of one video
    then land on both sides and make validation look better than it is: divide those by hand.

    Args:
        root: the folder, in one of the layouts above.
        val_fraction: share of each class that the hash keeps for validation, in (0, 1).
        seed: another seed divides differently.
        unlabelled_ok: accept pictures without class folders; their targets are `UNLABELLED`.

    Raises:
        DataError: there is no such folder, it holds no pictures, or its classes cannot train a classifier.
        UsageError: `val_fraction` is out of range.
    """
    root = Path(root)
    if not 0 < val_fraction < 1:
        raise UsageError(f"The validation fraction must lie between 0 and 1, such as 0.2, got {val_fraction}.")
    _require_folder(root)
    sides = _sides(root)
    listings = [_list(folder) for folder in sides or (root,)]
    for listing in listings:
        if not listing.pictures:
            raise DataError(f"{listing.folder} has no images (JPEG, PNG, WebP, …). {_EXPECTED}")
    flat = all(listing.is_flat for listing in listings)
    if flat and not unlabelled_ok:
        raise DataError(f"{root} has {len(listings[0].loose):,} pictures but no class folders. {_EXPECTED}")
    labels = () if flat else _labels(listings)
    halves = [listing.by_target(labels) for listing in listings]
    if not sides:
        halves = _divided(halves[0], root, val_fraction, seed)
    return ImageFolder(
        root=root,
        labels=labels,
        train=Split.of_classes(halves[0]),
        val=Split.of_classes(halves[1]),
        split="folders" if sides else "hashed",
        fingerprint=_fingerprint((path for listing in listings for path in listing.pictures), root),
        skipped=tuple(_skipped(listings, flat)),
    )


def subset(folder: ImageFolder, per_class: int, *, seed: int = 0) -> ImageFolder:
    """Keep at most `per_class` training pictures of each class; validation stays whole.

    The draw depends on the names and the seed only, and a smaller draw is part of a larger one.

    Raises:
        UsageError: `per_class` is less than 1.
    """
    if per_class < 1:
        raise UsageError(f"A class needs at least 1 training image, got {per_class} images a class.")
    by_target: _ByTarget = {}
    for path, target in zip(folder.train.paths, folder.train.targets, strict=True):
        by_target.setdefault(target, []).append(path)
    drawn = {
        target: lowest_ranked(paths, folder.root, count=per_class, seed=seed) for target, paths in by_target.items()
    }
    return replace(folder, train=Split.of_classes(drawn))


def _require_folder(root: Path) -> None:
    if root.is_dir():
        return
    if not root.exists():
        raise DataError(f"There is no folder {root}. {_EXPECTED}")
    if (command := _ARCHIVE_COMMANDS.get(root.suffix.lower())) is not None:
        raise DataError(f"{root} is an archive: unpack it with `{command.format(root)}` and give the folder.")
    raise DataError(f"{root} is a file, not a folder. {_EXPECTED}")


def _sides(root: Path) -> tuple[Path, Path] | None:
    """The folders of training and validation, or None where the user has not divided the pictures."""
    folders = {path.name.lower(): path for path in _visible(root) if path.is_dir()}
    train = next((folders[name] for name in _TRAIN_NAMES if name in folders), None)
    val = next((folders[name] for name in _VAL_NAMES if name in folders), None)
    if train and val:
        return train, val
    # A folder `train` may also be a class, beside `bus` and `car`: then it holds pictures itself.
    if train and any(path.is_dir() for path in _visible(train)) and not _list(train).loose:
        raise DataError(
            f"{root} has {train.name}/ but no validation folder. Expected val/, valid/, validation/ or test/ "
            f"beside it; or give {train}, and a part of it is kept for validation."
        )
    return None


def _divided(classes: _ByTarget, root: Path, val_fraction: float, seed: int) -> list[_ByTarget]:
    train: _ByTarget = {}
    val: _ByTarget = {}
    for target, paths in classes.items():
        train[target], val[target] = hashed_halves(paths, root, val_fraction=val_fraction, seed=seed)
    return [train, val]


def _list(folder: Path) -> _Listing:
    entries = _visible(folder)
    classes: dict[str, list[Path]] = {}
    unknown: list[Path] = []
    for path in entries:
        if path.is_dir():
            classes[path.name], strange = _sorted_out(_files_below(path))
            unknown += strange
    loose, strange = _sorted_out(path for path in entries if not path.is_dir())
    return _Listing(folder, classes, loose, unknown + strange)


def _labels(listings: list[_Listing]) -> tuple[str, ...]:
    for listing in listings:
        empty = [name for name, paths in listing.classes.items() if not paths]
        if empty:
            raise DataError(
                f"{listing.folder} has class folders without images: {_quoted(empty)}. Fill or remove them."
            )
    names = [set(listing.classes) for listing in listings]
    if names[0] != names[-1]:
        only_train, only_val = sorted(names[0] - names[-1]), sorted(names[-1] - names[0])
        differences = [
            f"{_quoted(missing)} only in {listing.folder.name}/"
            for missing, listing in ((only_train, listings[0]), (only_val, listings[-1]))
            if missing
        ]
        raise DataError(
            f"The classes of training and validation differ: {'; '.join(differences)}. "
            "Expected the same class folders on both sides."
        )
    if len(names[0]) == 1:
        (only,) = names[0]
        raise DataError(
            f"{listings[0].folder} has only one class, {only!r}; a classifier needs two or more. "
            f"If the class folders are inside it, give {listings[0].folder / only}."
        )
    return tuple(sorted(names[0]))


def _skipped(listings: list[_Listing], flat: bool) -> Iterator[Skipped]:
    reason: Reason = "outside a class folder"
    for listing in listings:
        yield from (Skipped(path, "of unknown type") for path in listing.unknown)
        if not flat:
            yield from (Skipped(path, reason) for path in listing.loose)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _sorted_out(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Pictures, and files that are neither pictures nor known companions of them."""
    pictures: list[Path] = []
    unknown: list[Path] = []
    for path in sorted(paths):
        if is_picture(path):
            pictures.append(path)
        elif path.suffix.lower() not in _COMPANION_SUFFIXES and path.stem.lower() not in _COMPANION_NAMES:
            unknown.append(path)
    return pictures, unknown


def _fingerprint(paths: Iterable[Path], root: Path) -> str:
    entries = sorted(f"{stable_name(path, root)}\0{_size_bytes(path)}" for path in paths)
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link to nowhere; `decode` reports it
        return 0


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

"""Index of a folder of labeled files, such as images, without opening them.

Layouts:

```
DATA/train/CLASS/*  DATA/val/CLASS/*  DATA/test/CLASS/*   one of `val` and `test` may be missing
DATA/CLASS/*                                              no splits
DATA/*                                                    no classes: only with `unlabeled_ok`
```

`val` may also be named `valid` or `validation`. A class folder may have subfolders. Hidden files, tables and texts are
ignored.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from kdedge.data.dataset_index import DatasetIndex, fingerprint_of
from kdedge.data.samples import FileSample, StoredSample
from kdedge.data.skipped_samples import SkippedSample
from kdedge.data.splits import UNLABELED, Split
from kdedge_runtime.errors import DataError
from kdedge_runtime.sinks.frame_recorder import RECORDED
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import files_below, is_image_file

__all__ = ["IMAGES", "SIDE_NAMES", "FolderKind", "Side", "check_folder", "list_folder", "list_samples", "split_folders"]

Side: TypeAlias = Literal["train", "val", "test"]
SIDE_NAMES: Mapping[Side, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
"""Folder names of the splits, in order of preference."""
_SIDE_WORDS: Mapping[Side, str] = {"train": "training", "val": "validation", "test": "test"}
_COMPANION_SUFFIXES = frozenset(
    {".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".npy", ".npz", ".parquet", ".pdf"}
    | {".pkl", ".py", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
)
_COMPANION_NAMES = frozenset({"license", "licence", "readme", "notice", "copying", "makefile"})
_ARCHIVE_COMMANDS = {".zip": "unzip {0}", ".tar": "tar -xf {0}", ".tgz": "tar -xf {0}", ".gz": "tar -xf {0}"}


@dataclass(frozen=True)
class FolderKind:
    """Kind of the files in a folder."""

    modality: str
    """Modality of their samples, a key of `kdedge.modalities.TRAINING_MODALITIES`."""
    noun: str
    """Name of the files in messages, in the plural, such as `images`."""
    formats: str
    """Examples of file formats in messages, such as `JPEG, PNG, WebP, …`."""
    is_sample: Callable[[Path], bool]
    """Return True if the name of a file is that of this kind."""
    samples_of: Callable[[Path, Path], Sequence[StoredSample]]
    """Return the samples of a file, given the root of the dataset and the file; several for the windows of a recording.

    A file that cannot be read has one sample, whose `read` raises.
    """

    @property
    def expected(self) -> str:
        """Sentence that describes the layouts with classes."""
        return f"Expected one subfolder of {self.noun} per class, or train/ and val/ with such subfolders."


IMAGES = FolderKind(
    "image", "images", "JPEG, PNG, WebP, …", is_image_file, lambda root, path: (FileSample.below(root, path),)
)
"""Image files."""


@dataclass(frozen=True)
class _Listing:
    """Files of one kind directly in a folder and in each of its class folders."""

    kind: FolderKind
    folder: Path
    classes: dict[str, list[Path]]
    loose: list[Path]
    unknown: list[Path]

    @property
    def files(self) -> list[Path]:
        return [path for paths in self.classes.values() for path in paths] + self.loose

    @property
    def is_flat(self) -> bool:
        return bool(self.loose) and not any(self.classes.values())

    def split(self, labels: tuple[str, ...], root: Path) -> Split:
        """Return the samples by class, in the order of the labels; without labels all are `UNLABELED`."""
        by_target = {index: self.classes[name] for index, name in enumerate(labels)} or {UNLABELED: self.loose}
        pairs = [
            (sample, target)
            for target, paths in by_target.items()
            for path in paths
            for sample in self.kind.samples_of(root, path)
        ]
        return Split(tuple(sample for sample, _ in pairs), tuple(target for _, target in pairs))


def list_folder(
    root: Path, kind: FolderKind = IMAGES, *, unlabeled_ok: bool, no_class: Collection[str] = ()
) -> DatasetIndex:
    """Index a folder; `val` is empty if the user has not set files aside.

    A `test/` folder with none of the classes has no labels to test against, as in many competitions. Its files are
    reported as skipped.

    Args:
        root: folder in one of the layouts above.
        kind: kind of its files.
        unlabeled_ok: True to accept files without class folders; their targets are `UNLABELED`.
        no_class: names of folders whose files belong to no class; they are reported as skipped.

    Raises:
        DataError: the folder does not exist, has no files of this kind, or its classes cannot train a classifier.
    """
    check_folder(root, kind.expected)
    listings = {side: _list(folder, kind) for side, folder in _side_folders(root, kind).items()}
    outside = {name: listing.classes.pop(name, []) for listing in listings.values() for name in no_class}
    aside: list[Path] = []
    if "test" in listings and not _is_labeled_alike(listings["test"], listings["train"]):
        aside = listings.pop("test").files
    for listing in listings.values():
        if not listing.files:
            raise DataError(f"{listing.folder} has no {kind.noun} ({kind.formats}). {kind.expected}")
    flat = all(listing.is_flat for listing in listings.values())
    if flat and not unlabeled_ok:
        raise DataError(
            f"{root} has {len(listings['train'].loose):,} {kind.noun} but no class folders. {kind.expected}"
        )
    labels = () if flat else _labels(listings)
    splits = {side: listing.split(labels, root) for side, listing in listings.items()}
    files = (path for listing in listings.values() for path in listing.files)
    unused: list[tuple[Path, str]] = [(path, "of unknown type") for one in listings.values() for path in one.unknown]
    if not flat:
        unused += [(path, "outside a class folder") for one in listings.values() for path in one.loose]
    unused += [(path, "outside a class folder") for path in aside]
    unused += [(path, f"of no class, in {name}/") for name, paths in outside.items() for path in paths]
    return DatasetIndex(
        source=str(root.resolve()),
        labels=labels,
        train=splits["train"],
        val=splits.get("val", Split()),
        test=splits.get("test"),
        split="folders" if "val" in splits else "hashed",
        fingerprint=fingerprint_of(f"{_name(root, path)}\0{_size_bytes(path)}" for path in files),
        modality=kind.modality,
        skipped=tuple(SkippedSample(_name(root, path), reason) for path, reason in unused),
        is_footage=flat and (root / RECORDED).is_file(),
    )


def list_samples(root: Path, kind: FolderKind = IMAGES, expected: str | None = None) -> Split:
    """List all files of a kind below a folder in any layout, without classes.

    Args:
        root: folder.
        kind: kind of its files.
        expected: sentence on what to give instead, for errors; None for a folder of this kind.

    Raises:
        DataError: the folder does not exist, or has none.
    """
    expected = expected or f"Expected a folder of {kind.noun} ({kind.formats}), in any layout."
    check_folder(root, expected)
    files = [path for path in files_below(root) if kind.is_sample(path)]
    if not files:
        raise DataError(f"{root} has no {kind.noun}. {expected}")
    samples = tuple(sample for path in files for sample in kind.samples_of(root, path))
    return Split(samples, (UNLABELED,) * len(samples))


def check_folder(root: Path, expected: str) -> None:
    """Raise unless the folder exists.

    Args:
        root: folder.
        expected: sentence on what to give instead, for errors.

    Raises:
        DataError: the path does not exist, or is a file.
    """
    if root.is_dir():
        return
    if not root.exists():
        raise DataError(f"There is no folder {root}. {expected}")
    if (command := _ARCHIVE_COMMANDS.get(root.suffix.lower())) is not None:
        raise DataError(f"{root} is an archive: extract it with `{command.format(root)}` and give the folder.")
    raise DataError(f"{root} is a file, not a folder. {expected}")


def split_folders(root: Path) -> dict[Side, Path]:
    """Return the folders that are named after splits."""
    below = {path.name.lower(): path for path in _visible(root) if path.is_dir()}
    return {
        side: below[next(name for name in names if name in below)]
        for side, names in SIDE_NAMES.items()
        if not below.keys().isdisjoint(names)
    }


def _side_folders(root: Path, kind: FolderKind) -> dict[Side, Path]:
    """Return the split folders created by the user; without any, the whole folder is for training."""
    found = split_folders(root)
    train = found.get("train")
    if train is not None and len(found) > 1:
        return found
    # A folder `train` may also be a class next to `bus` and `car`: then it contains files directly.
    if train is not None and any(path.is_dir() for path in _visible(train)) and not _list(train, kind).loose:
        raise DataError(
            f"{root} has {train.name}/ but no validation folder. Expected val/, valid/ or validation/ next to it. "
            f"With test/ alone, or if {train} is given directly, a part of {train.name}/ is used for validation."
        )
    return {"train": root}


def _is_labeled_alike(test: _Listing, train: _Listing) -> bool:
    if train.is_flat:
        return test.is_flat
    return any(paths and name in train.classes for name, paths in test.classes.items())


def _list(folder: Path, kind: FolderKind) -> _Listing:
    entries = _visible(folder)
    classes: dict[str, list[Path]] = {}
    unknown: list[Path] = []
    for path in entries:
        if path.is_dir():
            found, strange = _sorted_out(files_below(path), kind)
            classes.setdefault(displayable(path.name), []).extend(found)
            unknown += strange
    loose, strange = _sorted_out((path for path in entries if not path.is_dir()), kind)
    return _Listing(kind, folder, classes, loose, unknown + strange)


def _labels(listings: Mapping[Side, _Listing]) -> tuple[str, ...]:
    for listing in listings.values():
        empty = [name for name, paths in listing.classes.items() if not paths]
        if empty:
            raise DataError(
                f"{listing.folder} has class folders without {listing.kind.noun}: {_quoted(empty)}. Fill them, or "
                "remove them."
            )
    train = listings["train"]
    for side, other in listings.items():
        missing = sorted(train.classes.keys() - other.classes.keys())
        strange = sorted(other.classes.keys() - train.classes.keys())
        differences = [
            f"{_quoted(names)} only in {listing.folder.name}/"
            for names, listing in ((missing, train), (strange, other))
            if names
        ]
        if differences:
            raise DataError(
                f"The classes of training and {_SIDE_WORDS[side]} differ: {'; '.join(differences)}. "
                "Expected the same class folders in both splits."
            )
    if len(train.classes) == 1:
        (only,) = train.classes
        raise DataError(
            f"{train.folder} has only one class, {only!r}; a classifier needs two or more. "
            f"If the class folders are inside it, give {train.folder / only}."
        )
    return tuple(sorted(train.classes))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))


def _sorted_out(paths: Iterable[Path], kind: FolderKind) -> tuple[list[Path], list[Path]]:
    """Separate files of a kind from those that are neither of it nor known companion files."""
    found: list[Path] = []
    unknown: list[Path] = []
    for path in sorted(paths):
        if kind.is_sample(path):
            found.append(path)
        elif path.suffix.lower() not in _COMPANION_SUFFIXES and path.stem.lower() not in _COMPANION_NAMES:
            unknown.append(path)
    return found, unknown


def _name(root: Path, path: Path) -> str:
    return displayable(path.relative_to(root).as_posix())


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a broken link; `decode` reports it
        return 0


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

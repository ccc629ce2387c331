"""Index of a folder of labeled images, without opening images.

Layouts:

```
DATA/train/CLASS/*.jpg  DATA/val/CLASS/*.jpg  DATA/test/CLASS/*.jpg   one of `val` and `test` may be missing
DATA/CLASS/*.jpg                                                      no splits
DATA/*.jpg                                                            no classes: only with `unlabeled_ok`
```

`val` may also be named `valid` or `validation`. A class folder may have subfolders. Hidden files, tables and texts are
ignored.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from kdedge.data.dataset_index import DatasetIndex, fingerprint_of
from kdedge.data.samples import FileSample
from kdedge.data.splits import UNLABELED, Split
from kdedge.data.unreadable_files import SkippedFile
from kdedge_runtime.errors import DataError
from kdedge_runtime.sinks.frame_recorder import RECORDED
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.images import files_below, is_image_file

__all__ = ["check_image_folder", "list_folder", "list_images"]

_Side: TypeAlias = Literal["train", "val", "test"]
_SIDE_NAMES: Mapping[_Side, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
"""Folder names of the splits, in order of preference."""
_SIDE_WORDS: Mapping[_Side, str] = {"train": "training", "val": "validation", "test": "test"}
_COMPANION_SUFFIXES = frozenset(
    {".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".npy", ".npz", ".parquet", ".pdf"}
    | {".pkl", ".py", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
)
_COMPANION_NAMES = frozenset({"license", "licence", "readme", "notice", "copying", "makefile"})
_ARCHIVE_COMMANDS = {".zip": "unzip {0}", ".tar": "tar -xf {0}", ".tgz": "tar -xf {0}", ".gz": "tar -xf {0}"}
_EXPECTED = "Expected one subfolder of images per class, or train/ and val/ with such subfolders."


@dataclass(frozen=True)
class _Listing:
    """Images directly in a folder and in each of its class folders."""

    folder: Path
    classes: dict[str, list[Path]]
    loose: list[Path]
    unknown: list[Path]

    @property
    def images(self) -> list[Path]:
        return [path for paths in self.classes.values() for path in paths] + self.loose

    @property
    def is_flat(self) -> bool:
        return bool(self.loose) and not any(self.classes.values())

    def split(self, labels: tuple[str, ...], root: Path) -> Split:
        """Return the images by class, in the order of the labels; without labels all are `UNLABELED`."""
        by_target = {index: self.classes[name] for index, name in enumerate(labels)} or {UNLABELED: self.loose}
        return Split(
            tuple(FileSample.below(root, path) for paths in by_target.values() for path in paths),
            tuple(target for target, paths in by_target.items() for _ in paths),
        )


def list_folder(root: Path, *, unlabeled_ok: bool, no_class: Collection[str] = ()) -> DatasetIndex:
    """Index a folder; `val` is empty if the user has not set images aside.

    A `test/` folder with none of the classes has no labels to test against, as in many competitions. Its images are
    reported as skipped.

    Args:
        root: folder in one of the layouts above.
        unlabeled_ok: True to accept images without class folders; their targets are `UNLABELED`.
        no_class: names of folders whose images belong to no class; they are reported as skipped.

    Raises:
        DataError: the folder does not exist, has no images, or its classes cannot train a classifier.
    """
    check_image_folder(root)
    listings = {side: _list(folder) for side, folder in _side_folders(root).items()}
    outside = {name: listing.classes.pop(name, []) for listing in listings.values() for name in no_class}
    aside: list[Path] = []
    if "test" in listings and not _is_labeled_alike(listings["test"], listings["train"]):
        aside = listings.pop("test").images
    for listing in listings.values():
        if not listing.images:
            raise DataError(f"{listing.folder} has no images (JPEG, PNG, WebP, …). {_EXPECTED}")
    flat = all(listing.is_flat for listing in listings.values())
    if flat and not unlabeled_ok:
        raise DataError(f"{root} has {len(listings['train'].loose):,} images but no class folders. {_EXPECTED}")
    labels = () if flat else _labels(listings)
    splits = {side: listing.split(labels, root) for side, listing in listings.items()}
    images = (FileSample.below(root, path) for listing in listings.values() for path in listing.images)
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
        fingerprint=fingerprint_of(f"{sample.name}\0{_size_bytes(sample.path)}" for sample in images),
        skipped=tuple(SkippedFile(FileSample.below(root, path).name, reason) for path, reason in unused),
        is_footage=flat and (root / RECORDED).is_file(),
    )


def list_images(root: Path) -> Split:
    """List all images below a folder in any layout, without classes.

    Raises:
        DataError: the folder does not exist, or has no images.
    """
    check_image_folder(root)
    samples = tuple(FileSample.below(root, path) for path in files_below(root) if is_image_file(path))
    if not samples:
        raise DataError(f"{root} has no images (JPEG, PNG, WebP, …). Expected a folder of images, in any layout.")
    return Split(samples, (UNLABELED,) * len(samples))


def check_image_folder(root: Path) -> None:
    """Raise unless the folder exists.

    Raises:
        DataError: the path does not exist, or is a file.
    """
    if root.is_dir():
        return
    if not root.exists():
        raise DataError(f"There is no folder {root}. {_EXPECTED}")
    if (command := _ARCHIVE_COMMANDS.get(root.suffix.lower())) is not None:
        raise DataError(f"{root} is an archive: extract it with `{command.format(root)}` and give the folder.")
    raise DataError(f"{root} is a file, not a folder. {_EXPECTED}")


def _side_folders(root: Path) -> dict[_Side, Path]:
    """Return the split folders created by the user; without any, the whole folder is for training."""
    below = {path.name.lower(): path for path in _visible(root) if path.is_dir()}
    found = {
        side: below[next(name for name in names if name in below)]
        for side, names in _SIDE_NAMES.items()
        if not below.keys().isdisjoint(names)
    }
    train = found.get("train")
    if train is not None and len(found) > 1:
        return found
    # A folder `train` may also be a class next to `bus` and `car`: then it contains images directly.
    if train is not None and any(path.is_dir() for path in _visible(train)) and not _list(train).loose:
        raise DataError(
            f"{root} has {train.name}/ but no validation folder. Expected val/, valid/ or validation/ next to it. "
            f"With test/ alone, or if {train} is given directly, a part of {train.name}/ is used for validation."
        )
    return {"train": root}


def _is_labeled_alike(test: _Listing, train: _Listing) -> bool:
    if train.is_flat:
        return test.is_flat
    return any(paths and name in train.classes for name, paths in test.classes.items())


def _list(folder: Path) -> _Listing:
    entries = _visible(folder)
    classes: dict[str, list[Path]] = {}
    unknown: list[Path] = []
    for path in entries:
        if path.is_dir():
            images, strange = _sorted_out(files_below(path))
            classes.setdefault(displayable(path.name), []).extend(images)
            unknown += strange
    loose, strange = _sorted_out(path for path in entries if not path.is_dir())
    return _Listing(folder, classes, loose, unknown + strange)


def _labels(listings: Mapping[_Side, _Listing]) -> tuple[str, ...]:
    for listing in listings.values():
        empty = [name for name, paths in listing.classes.items() if not paths]
        if empty:
            raise DataError(
                f"{listing.folder} has class folders without images: {_quoted(empty)}. Fill or remove them."
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


def _sorted_out(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Separate images from files that are neither images nor known companion files."""
    images: list[Path] = []
    unknown: list[Path] = []
    for path in sorted(paths):
        if is_image_file(path):
            images.append(path)
        elif path.suffix.lower() not in _COMPANION_SUFFIXES and path.stem.lower() not in _COMPANION_NAMES:
            unknown.append(path)
    return images, unknown


def _size_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # a broken link; `decode` reports it
        return 0


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

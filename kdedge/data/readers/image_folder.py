"""What a folder of labelled pictures holds, found without opening a picture.

Layouts:

```
DATA/train/CLASS/*.jpg  DATA/val/CLASS/*.jpg  DATA/test/CLASS/*.jpg   `val` or `test` may be missing, not both
DATA/CLASS/*.jpg                                                      not divided
DATA/*.jpg                                                            no classes: only with `unlabelled_ok`
```

`val` may also be called `valid` or `validation`. A class folder may have folders of its own. Hidden files, tables and
texts are left alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from kdedge.data.dataset_index import Collection, fingerprint_of
from kdedge.data.samples import FileSample
from kdedge.data.splits import UNLABELLED, Split
from kdedge.data.unreadable_files import Reason, Skipped
from kdedge_runtime.errors import DataError
from kdedge_runtime.util.files import written
from kdedge_runtime.util.images import files_below, is_picture

__all__ = ["list_folder", "require_folder"]

_Side: TypeAlias = Literal["train", "val", "test"]
_SIDE_NAMES: Mapping[_Side, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}
"""Names of the folders, in the order of preference where there are several."""
_SIDE_WORDS: Mapping[_Side, str] = {"train": "training", "val": "validation", "test": "test"}
_COMPANION_SUFFIXES = frozenset(
    {".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".npy", ".npz", ".parquet", ".pdf"}
    | {".pkl", ".py", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"}
)
_COMPANION_NAMES = frozenset({"license", "licence", "readme", "notice", "copying", "makefile"})
_ARCHIVE_COMMANDS = {".zip": "unzip {0}", ".tar": "tar -xf {0}", ".tgz": "tar -xf {0}", ".gz": "tar -xf {0}"}
_EXPECTED = "Expected one folder of pictures a class, or train/ and val/ with such folders inside."


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

    def split(self, labels: tuple[str, ...], root: Path) -> Split:
        """Pictures by class, in the order of the labels; without labels all are `UNLABELLED`."""
        by_target = {index: self.classes[name] for index, name in enumerate(labels)} or {UNLABELLED: self.loose}
        return Split(
            tuple(FileSample.below(root, path) for paths in by_target.values() for path in paths),
            tuple(target for target, paths in by_target.items() for _ in paths),
        )


def list_folder(root: Path, *, unlabelled_ok: bool) -> Collection:
    """List a folder; `val` stays empty where the user has not set pictures aside for it.

    A `test/` folder with none of the classes has no labels to test against (many contests are shipped so): its
    pictures are reported as skipped.

    Args:
        root: the folder, in one of the layouts above.
        unlabelled_ok: accept pictures without class folders; their targets are `UNLABELLED`.

    Raises:
        DataError: there is no such folder, it holds no pictures, or its classes cannot train a classifier.
    """
    require_folder(root)
    listings = {side: _list(folder) for side, folder in _side_folders(root).items()}
    aside: list[Path] = []
    if "test" in listings and not _is_labelled_alike(listings["test"], listings["train"]):
        aside = listings.pop("test").pictures
    for listing in listings.values():
        if not listing.pictures:
            raise DataError(f"{listing.folder} has no images (JPEG, PNG, WebP, …). {_EXPECTED}")
    flat = all(listing.is_flat for listing in listings.values())
    if flat and not unlabelled_ok:
        raise DataError(f"{root} has {len(listings['train'].loose):,} pictures but no class folders. {_EXPECTED}")
    labels = () if flat else _labels(listings)
    splits = {side: listing.split(labels, root) for side, listing in listings.items()}
    pictures = (FileSample.below(root, path) for listing in listings.values() for path in listing.pictures)
    unused: list[tuple[Path, Reason]] = [(path, "of unknown type") for one in listings.values() for path in one.unknown]
    if not flat:
        unused += [(path, "outside a class folder") for one in listings.values() for path in one.loose]
    unused += [(path, "outside a class folder") for path in aside]
    return Collection(
        source=str(root.resolve()),
        labels=labels,
        train=splits["train"],
        val=splits.get("val", Split()),
        test=splits.get("test"),
        split="folders" if "val" in splits else "hashed",
        fingerprint=fingerprint_of(f"{sample.name}\0{_size_bytes(sample.path)}" for sample in pictures),
        skipped=tuple(Skipped(FileSample.below(root, path).name, reason) for path, reason in unused),
    )


def require_folder(root: Path) -> None:
    """Raise unless there is a folder.

    Raises:
        DataError: there is nothing of that name, or a file.
    """
    if root.is_dir():
        return
    if not root.exists():
        raise DataError(f"There is no folder {root}. {_EXPECTED}")
    if (command := _ARCHIVE_COMMANDS.get(root.suffix.lower())) is not None:
        raise DataError(f"{root} is an archive: unpack it with `{command.format(root)}` and give the folder.")
    raise DataError(f"{root} is a file, not a folder. {_EXPECTED}")


def _side_folders(root: Path) -> dict[_Side, Path]:
    """The folders that the user has divided the pictures into; all are for training where there are none."""
    below = {path.name.lower(): path for path in _visible(root) if path.is_dir()}
    found = {
        side: below[next(name for name in names if name in below)]
        for side, names in _SIDE_NAMES.items()
        if not below.keys().isdisjoint(names)
    }
    train = found.get("train")
    if train is not None and len(found) > 1:
        return found
    # A folder `train` may also be a class, beside `bus` and `car`: then it holds pictures itself.
    if train is not None and any(path.is_dir() for path in _visible(train)) and not _list(train).loose:
        raise DataError(
            f"{root} has {train.name}/ but no validation folder. Expected val/, valid/ or validation/ beside it "
            f"(with test/ alone, a part of {train.name}/ is kept for validation); or give {train}, and a part of it "
            "is kept for validation."
        )
    return {"train": root}


def _is_labelled_alike(test: _Listing, train: _Listing) -> bool:
    if train.is_flat:
        return test.is_flat
    return any(paths and name in train.classes for name, paths in test.classes.items())


def _list(folder: Path) -> _Listing:
    entries = _visible(folder)
    classes: dict[str, list[Path]] = {}
    unknown: list[Path] = []
    for path in entries:
        if path.is_dir():
            pictures, strange = _sorted_out(files_below(path))
            classes.setdefault(written(path.name), []).extend(pictures)
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
                "Expected the same class folders on both sides."
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
    """Pictures, and files that are neither pictures nor known companions of them."""
    pictures: list[Path] = []
    unknown: list[Path] = []
    for path in sorted(paths):
        if is_picture(path):
            pictures.append(path)
        elif path.suffix.lower() not in _COMPANION_SUFFIXES and path.stem.lower() not in _COMPANION_NAMES:
            unknown.append(path)
    return pictures, unknown


def _size_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # a link to nowhere; `decode` reports it
        return 0


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

"""Labeled images in WebDataset shards: plain tar files, which are not extracted.

A sample is `KEY.jpg` (or another image type) and `KEY.cls`, its class index as text; other files with the same key are
ignored. `classes.txt`, `labels.txt` (one name per line) or `classes.json` (a list) next to the shards holds the class
names. This is the layout of https://github.com/webdataset/webdataset, which streams shards sequentially. Here images
are read by their offsets, so that shuffling, splitting and resuming work as for folders.

DATA is a folder of `.tar` files, or patterns joined by `::`

```
shards/train-{0000..0099}.tar::shards/val-{0000..0009}.tar    numbers
shards/{train,val}-*.tar                                      alternatives and wildcards
```

`train`, `val` (`valid`, `validation`) or `test` in the name of a shard, or of its folder, selects its split; the
default is train.
"""

import glob
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdedge.data.dataset_index import DatasetIndex, fingerprint_of
from kdedge.data.readers.tar_archive import TarSample, list_tar
from kdedge.data.skipped_samples import SkippedSample
from kdedge.data.splits import UNLABELED, Split
from kdedge_runtime.errors import DataError
from kdedge_runtime.util.images import IMAGE_SUFFIXES

__all__ = ["is_shards", "list_shards", "shard_files"]

_SIDE = re.compile(r"(?<![a-z])(?:(train|training)|(val|valid|validation)|(test))(?![a-z])")
_BRACES = re.compile(r"\{([^}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_LABEL_FILES = ("classes.txt", "labels.txt", "classes.json")
_EXPECTED = "Expected tar files of pairs such as 0001.jpg and 0001.cls, the class index of the image."
_EXPECTED_LABELS = 'Expected a list of class names: one name per line, or as JSON ["cat", "dog"].'


def is_shards(data: str) -> bool:
    """Return True if DATA refers to shards: patterns of tar files, or a folder of tar files without images."""
    root = Path(data)
    if root.is_dir():
        return bool(_tars_in(root)) and not any(
            name.lower().endswith(IMAGE_SUFFIXES) for _, _, names in os.walk(root) for name in names
        )
    return data.endswith(".tar") or (".tar" in data and bool(re.search(r"[{*?]|::", data)))


def list_shards(data: str, *, unlabeled_ok: bool) -> DatasetIndex:
    """List the samples of shards; `val` is empty if no shard is for validation.

    Args:
        data: dataset location, see above.
        unlabeled_ok: True to accept images without `.cls`; their targets are `UNLABELED`.

    Raises:
        DataError: A shard is missing or damaged, or the classes are unreadable or cannot train a classifier. Every
            class must occur in the training split.
    """
    root, source, tars = shard_files(data)
    found: dict[str, list[tuple[TarSample, int]]] = defaultdict(list)
    for tar in tars:
        name = tar.relative_to(root).as_posix()
        found[_side(name)] += list_tar(tar, name)
    if "train" not in found:
        if len(found) > 1:
            raise DataError(
                f"None of the shards in {data} is named as a training shard. Add shards such as train-*.tar."
            )
        found = {"train": next(iter(found.values()), [])}
    every = [pair for pairs in found.values() for pair in pairs]
    if not every:
        raise DataError(f"{data} has no images. {_EXPECTED}")
    classes = {target for _, target in every} - {UNLABELED}
    if not classes and not unlabeled_ok:
        raise DataError(
            f"{data} has {len(every):,} images but no classes. {_EXPECTED} If the classes are folders in the tar file, "
            "extract it with `tar -xf` and give the folder."
        )
    if len(classes) == 1:
        raise DataError(f"{data} has only one class, {min(classes)}; a classifier needs two or more.")
    strays = [sample for sample, target in every if classes and target == UNLABELED]
    splits = {side: _split(pairs, labeled=bool(classes)) for side, pairs in found.items()}
    unseen = sorted(classes - set(splits["train"].targets))
    if unseen:
        raise DataError(
            f"{data} has no training images of class {', '.join(map(str, unseen[:6]))}, which occurs in another split. "
            "Add the missing training shards, or the missing .cls files in them."
        )
    return DatasetIndex(
        source=source,
        labels=_labels(root, max(classes)) if classes else (),
        train=splits["train"],
        val=splits.get("val", Split()),
        test=splits.get("test"),
        split="shards" if "val" in splits else "hashed",
        fingerprint=fingerprint_of(f"{sample.name}\0{sample.size_bytes}\0{target}" for sample, target in every),
        skipped=tuple(SkippedSample(sample.name, "without a class") for sample in strays),
    )


def shard_files(data: str) -> tuple[Path, str, list[Path]]:
    """Return the common folder of shards, the location with absolute paths, and the tar files.

    Raises:
        DataError: A pattern matches no file.
    """
    if Path(data).is_dir():
        root = Path(data).resolve()
        return root, str(root), _tars_in(root)
    source = "::".join(os.path.abspath(pattern) for pattern in data.split("::"))  # noqa: PTH100 - keeps links
    tars = list(dict.fromkeys(_expanded(source)))  # patterns may overlap
    return Path(os.path.commonpath([tar.parent for tar in tars])), source, tars


def _tars_in(root: Path) -> list[Path]:
    """Return the tar files in a folder and in its split subfolders."""
    sides = (path for path in root.iterdir() if _SIDE.fullmatch(path.name.lower()) and path.is_dir())
    return sorted(path for folder in (root, *sides) for path in folder.glob("*.tar") if path.name[0] != ".")


def _expanded(patterns: str) -> Iterator[Path]:
    """Yield the files that match the patterns; a pattern without wildcards may name a missing file."""
    for pattern in patterns.split("::"):
        for name in _without_braces(pattern):
            matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]  # noqa: PTH207 - absolute patterns
            if not matches:
                raise DataError(f"No file matches {name}. Expected the names of tar files, such as train-*.tar.")
            yield from map(Path, matches)


def _without_braces(pattern: str) -> Iterator[str]:
    """Expand `{000..012}` and `{train,val}` as a shell does."""
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(found[1])
    if numbers is not None:
        first, last = int(numbers[1]), int(numbers[2])
        digits = len(numbers[1]) if numbers[1].startswith("0") else 0
        choices = [f"{number:0{digits}}" for number in range(first, last + 1)]
    else:
        choices = found[1].split(",") if "," in found[1] and "{" not in found[1] else []
    if not choices:
        raise DataError(
            f"{found[0]} in {pattern} is not a range. Expected one such as {{0000..0099}} or {{train,val}}."
        )
    for choice in choices:
        yield from _without_braces(pattern[: found.start()] + choice + pattern[found.end() :])


def _side(name: str) -> str:
    """Return the last split named in a shard's path: `train/val-0.tar` is for validation."""
    named_sides = [match.lastindex for match in _SIDE.finditer(name.lower())]
    return {1: "train", 2: "val", 3: "test"}[named_sides[-1] or 1] if named_sides else "train"


def _split(pairs: Iterable[tuple[TarSample, int]], *, labeled: bool) -> Split:
    chosen = [(sample, target) for sample, target in pairs if not labeled or target != UNLABELED]
    return Split(tuple(sample for sample, _ in chosen), tuple(target for _, target in chosen))


def _labels(root: Path, largest: int) -> tuple[str, ...]:
    """Return the class names next to the shards, or class indices if there are none."""
    path = next((root / name for name in _LABEL_FILES if (root / name).is_file()), None)
    if path is None:
        return tuple(str(index) for index in range(largest + 1))
    try:
        text = path.read_text(encoding="utf-8").strip()
        labels = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    except ValueError as error:  # includes UTF-8 errors
        raise DataError(f"{path} cannot be read: {error}. {_EXPECTED_LABELS}") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{path} is not a list of names. {_EXPECTED_LABELS}")
    if largest >= len(labels):
        raise DataError(f"{path} has {len(labels)} class names, but the shards have class {largest} (counted from 0).")
    return tuple(labels)

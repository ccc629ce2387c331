"""Torchvision datasets, read from a folder on disk without downloading.

DATA is `torchvision:NAME:ROOT`, such as `torchvision:CIFAR10:/data`. Supported are all classes of
`torchvision.datasets` that require only a root and return pairs of an image and an integer. The splits are the official
ones.
"""

import difflib
import functools
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import datasets

from kdedge.data.dataset_index import TORCHVISION, DatasetIndex, fingerprint_of
from kdedge.data.samples import ImageSample
from kdedge.data.splits import Split
from kdedge_runtime.errors import DataError, MissingDependency
from kdedge_runtime.util.images import UnreadableImage

__all__ = ["TorchvisionSample", "list_torchvision"]

_SPLITS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
"""Names of the splits in classes with a parameter `split`."""
_TARGET_ATTRIBUTES = ("targets", "labels", "_labels", "y")
_PAIR_ATTRIBUTES = ("samples", "_samples")
"""Attributes that may hold the targets, alone or in pairs with files."""


@dataclass(frozen=True, eq=False)
class _Side:
    """One open split of a dataset. Other processes receive its description and open it themselves."""

    kind: Any
    """Class from `torchvision.datasets`."""
    root: Path
    choice: Mapping[str, Any]
    """Argument that selects the split; empty if there is none."""
    dataset: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.kind, self.root, *self.choice.items())


@dataclass(frozen=True, slots=True)
class TorchvisionSample(ImageSample):
    """Item of a torchvision dataset."""

    side: _Side
    index: int

    def __str__(self) -> str:
        return f"{self.name} of {self.side.kind.__name__} in {self.side.root}"

    def open(self) -> Image.Image:
        """Open the image; see `ImageSample.open`."""
        try:
            image: Image.Image = self.side.dataset[self.index][0]
        except Exception as error:  # every class reads its files differently
            raise UnreadableImage(f"{self} cannot be read: {error}.", "unreadable") from error
        return image

    def stamp(self) -> str:
        """Return an empty stamp, since published data does not change; see `StoredSample.stamp`."""
        return ""


def list_torchvision(data: str) -> DatasetIndex:
    """List a torchvision dataset; `val` is empty without an official validation split.

    Args:
        data: dataset location, see above. Labels are the class names, or indices if the dataset has none.

    Raises:
        DataError: the dataset is unknown to torchvision, not for classification, or not in that folder.
        MissingDependency: torchvision needs another package to read it.
    """
    name, _, folder = data.removeprefix(TORCHVISION).partition(":")
    if not folder:
        raise DataError(f"{data} has no folder. Expected {TORCHVISION}NAME:ROOT, such as {TORCHVISION}CIFAR10:/data.")
    kind, root = _class(name), Path(folder).expanduser().resolve()
    sides = _sides(kind, root)
    splits = {side_name: split for side_name, side in sides.items() if (split := _split(side_name, side)) is not None}
    if "train" not in splits:
        raise DataError(
            f"torchvision's {name} is not for classification: its items are not pairs of an image and a class index."
        )
    largest = max(int(target) for split in splits.values() for target in split.targets)
    return DatasetIndex(
        source=f"{TORCHVISION}{name}:{root}",
        labels=_labels(sides["train"].dataset, largest),
        train=splits["train"],
        val=splits.get("val", Split()),
        test=splits.get("test"),
        split="official" if "val" in splits else "hashed",
        fingerprint=fingerprint_of(
            [f"{sample.name}\0{target}" for split in splits.values() for sample, target in split.pairs()]
            + [f"{name}\0{side.choice}\0{_pixel_hash(side.dataset)}" for side in sides.values()]
        ),
    )


def _class(name: str) -> Any:
    usable = {}
    for each in datasets.__all__:
        kind = getattr(datasets, each)
        parameters = inspect.signature(kind).parameters.values()
        required = [one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
        if required == ["root"]:
            usable[each] = kind
    if name in usable:
        return usable[name]
    by_lower = {each.lower(): each for each in usable}
    near = [by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower)]
    raise DataError(
        f"torchvision has no dataset {name!r} that can be read from a folder alone. "
        + (f"Did you mean {', '.join(near)}?" if near else "Expected a name such as CIFAR10, Food101 or EuroSAT.")
    )


def _sides(kind: Any, root: Path) -> dict[str, _Side]:
    parameters = inspect.signature(kind).parameters
    choices: dict[str, list[dict[str, Any]]] = {"train": [{}]}
    if "train" in parameters:
        choices = {"train": [{"train": True}], "test": [{"train": False}]}
    elif "split" in parameters:
        choices = {side: [{"split": name} for name in names] for side, names in _SPLITS.items()}
        choices["train"].append({})  # the default of some classes is a split such as `trainval` or `train-standard`
    sides: dict[str, _Side] = {}
    for name, alternatives in choices.items():
        for choice in alternatives:
            if name not in sides and (side := _opened(kind, root, choice)) is not None:
                sides[name] = side
    return sides


def _opened(kind: Any, root: Path, choice: Mapping[str, Any]) -> _Side | None:
    """Open one split of a dataset; None if it does not exist."""
    name, can_download = kind.__name__, "download" in inspect.signature(kind).parameters
    try:
        if not root.is_dir():
            raise FileNotFoundError("there is no such folder")
        dataset = kind(root, **choice, **({"download": False} if can_download else {}))  # some download by default
    except ImportError as error:
        package = str(error.name).partition(".")[0]
        raise MissingDependency(
            f"torchvision needs {package} to read {name}. Install it: pip install {package}"
        ) from error
    except Exception as error:  # every class reads its files differently
        if isinstance(error, ValueError) and str(error).startswith("Unknown value"):
            return None
        arguments = "".join(f", {key}={value!r}" for key, value in choice.items())
        advice = (
            f'To download it: python -c "from torchvision.datasets import {name}; '
            f'{name}({str(root)!r}{arguments}, download=True)"'
            if can_download
            else f"It must be downloaded manually, see python -c \"help('torchvision.datasets.{name}')\""
        )
        raise DataError(f"torchvision's {name}{arguments} cannot be read from {root} ({error}). {advice}") from error
    return _Side(kind, root, choice, dataset)


@functools.lru_cache(maxsize=len(_SPLITS))
def _reopened(kind: Any, root: Path, *choice: tuple[str, Any]) -> _Side | None:
    """Reopen a split in another process."""
    return _opened(kind, root, dict(choice))


def _split(name: str, side: _Side) -> Split | None:
    """Return the items of a split; None if it has no classes, like some published test splits."""
    targets = _targets(side)
    if targets is None:
        return None
    return Split(tuple(TorchvisionSample(f"{name}/{index:06}", side, index) for index in range(len(targets))), targets)


def _targets(side: _Side) -> tuple[int, ...] | None:
    """Return the class of every item, without decoding images if the dataset stores classes separately."""
    count = len(side.dataset)
    probes = {index: _item(side, index) for index in (0, count // 2, count - 1)} if count else {}
    if not probes or not all(map(_is_labeled, probes.values())):
        return None
    kept = [getattr(side.dataset, name, ()) for name in _TARGET_ATTRIBUTES]
    kept += [[pair[1] for pair in getattr(side.dataset, name, ())] for name in _PAIR_ATTRIBUTES]
    for values in map(np.asarray, kept):
        is_plain = values.shape == (count,) and np.issubdtype(values.dtype, np.integer)
        if is_plain and all(values[index] == item[1] for index, item in probes.items()):
            return tuple(values.tolist())
    return tuple(int(_item(side, index)[1]) for index in range(count))


def _item(side: _Side, index: int) -> Any:
    try:
        return side.dataset[index]
    except Exception as error:  # every class reads its files differently
        raise DataError(
            f"Item {index} of torchvision's {side.kind.__name__} in {side.root} cannot be read ({error}). "
            "Download the dataset again."
        ) from error


def _is_labeled(item: Any) -> bool:
    is_pair = isinstance(item, tuple) and len(item) == 2
    return is_pair and isinstance(item[0], Image.Image) and isinstance(item[1], int | np.integer)


def _labels(dataset: Any, largest: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or ()
    if len(names) <= largest:
        return tuple(str(index) for index in range(largest + 1))
    return tuple(
        name if isinstance(name, str) else name[0] for name in names
    )  # ImageNet's labels are tuples of synonyms


def _pixel_hash(dataset: Any) -> str:
    """Hash in-memory pixels with SHA-256; published files do not change, but custom ones may."""
    pixels = getattr(dataset, "data", None)
    if not isinstance(pixels, np.ndarray | torch.Tensor):
        return ""
    return hashlib.sha256(np.asarray(pixels).tobytes()).hexdigest()

"""Data sets that torchvision knows by name, read from a folder where they lie already; nothing is downloaded.

DATA is `torchvision:NAME:ROOT`, such as `torchvision:CIFAR10:/data`: any class of `torchvision.datasets` that needs no
more than its root and gives pairs of a picture and an integer. The sides are those of its publisher.
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

from kdedge.data.dataset_index import TORCHVISION, Collection, fingerprint_of
from kdedge.data.samples import Sample
from kdedge.data.splits import Split
from kdedge_runtime.errors import DataError, MissingDependency
from kdedge_runtime.util.images import UnreadablePicture

__all__ = ["TorchvisionSample", "list_torchvision"]

_SPLITS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
"""What the classes call their sides, where they have a parameter `split`."""
_TARGET_ATTRIBUTES = ("targets", "labels", "_labels", "y")
_PAIR_ATTRIBUTES = ("samples", "_samples")
"""Where the classes keep their targets, alone or in pairs with files."""


@dataclass(frozen=True, eq=False)
class _Side:
    """One side of a data set, open. Other processes get its description and open it themselves."""

    kind: Any
    """Class of `torchvision.datasets`."""
    root: Path
    choice: Mapping[str, Any]
    """The argument that chooses the side, if there are any."""
    dataset: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.kind, self.root, *self.choice.items())


@dataclass(frozen=True, slots=True)
class TorchvisionSample(Sample):
    """One item of a data set of torchvision."""

    side: _Side
    index: int

    def __str__(self) -> str:
        return f"{self.name} of {self.side.kind.__name__} in {self.side.root}"

    def open(self) -> Image.Image:
        """See `Sample.open`."""
        try:
            picture: Image.Image = self.side.dataset[self.index][0]
        except Exception as error:  # every class reads its files in its own way
            raise UnreadablePicture(f"{self} cannot be read: {error}.", "unreadable") from error
        return picture

    def stamp(self) -> str:
        """See `Sample.stamp`: what is published does not change."""
        return ""


def list_torchvision(data: str) -> Collection:
    """List a data set; `val` stays empty where its publisher has none.

    Args:
        data: see above. Labels are the class names, or numbers where the data set has none.

    Raises:
        DataError: torchvision has no such data set, it is not for classifiers, or it is not in that folder.
        MissingDependency: torchvision needs another package to read it.
    """
    name, _, folder = data.removeprefix(TORCHVISION).partition(":")
    if not folder:
        raise DataError(f"{data} names no folder. Expected {TORCHVISION}NAME:ROOT, such as {TORCHVISION}CIFAR10:/data.")
    kind, root = _class(name), Path(folder).expanduser().resolve()
    sides = _sides(kind, root)
    splits = {side_name: split for side_name, side in sides.items() if (split := _split(side_name, side)) is not None}
    if "train" not in splits:
        raise DataError(
            f"torchvision's {name} is not for classifiers: its items are no pairs of a picture and a number."
        )
    largest = max(target for split in splits.values() for target in split.targets)
    return Collection(
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
        f"torchvision has no data set {name!r} that can be read from a folder alone. "
        + (f"Nearest: {', '.join(near)}." if near else "Expected a name such as CIFAR10, Food101 or EuroSAT.")
    )


def _sides(kind: Any, root: Path) -> dict[str, _Side]:
    parameters = inspect.signature(kind).parameters
    choices: dict[str, list[dict[str, Any]]] = {"train": [{}]}
    if "train" in parameters:
        choices = {"train": [{"train": True}], "test": [{"train": False}]}
    elif "split" in parameters:
        choices = {side: [{"split": name} for name in names] for side, names in _SPLITS.items()}
        choices["train"].append({})  # what some call `trainval` or `train-standard` is what they give by themselves
    sides: dict[str, _Side] = {}
    for name, alternatives in choices.items():
        for choice in alternatives:
            if name not in sides and (side := _opened(kind, root, choice)) is not None:
                sides[name] = side
    return sides


def _opened(kind: Any, root: Path, choice: Mapping[str, Any]) -> _Side | None:
    """One side of a data set; None if it has no such side."""
    name, can_download = kind.__name__, "download" in inspect.signature(kind).parameters
    try:
        if not root.is_dir():
            raise FileNotFoundError("there is no such folder")
        dataset = kind(root, **choice, **({"download": False} if can_download else {}))  # some download by default
    except ImportError as error:
        package = str(error.name).partition(".")[0]
        raise MissingDependency(f"torchvision needs {package} to read {name}. Type: pip install {package}") from error
    except Exception as error:  # every class reads its files in its own way
        if isinstance(error, ValueError) and str(error).startswith("Unknown value"):
            return None
        arguments = "".join(f", {key}={value!r}" for key, value in choice.items())
        advice = (
            f'To download it: python -c "from torchvision.datasets import {name}; '
            f'{name}({str(root)!r}{arguments}, download=True)"'
            if can_download
            else f"It has to be downloaded by hand, see python -c \"help('torchvision.datasets.{name}')\""
        )
        raise DataError(f"torchvision's {name}{arguments} cannot be read from {root} ({error}). {advice}") from error
    return _Side(kind, root, choice, dataset)


@functools.lru_cache(maxsize=len(_SPLITS))
def _reopened(kind: Any, root: Path, *choice: tuple[str, Any]) -> _Side | None:
    """A side that another process has opened before."""
    return _opened(kind, root, dict(choice))


def _split(name: str, side: _Side) -> Split | None:
    """The items of a side; None without classes, as some test sides are published."""
    targets = _targets(side)
    if targets is None:
        return None
    return Split(tuple(TorchvisionSample(f"{name}/{index:06}", side, index) for index in range(len(targets))), targets)


def _targets(side: _Side) -> tuple[int, ...] | None:
    """The class of every item, without decoding pictures where the data set keeps the classes apart from them."""
    count = len(side.dataset)
    probes = {index: _item(side, index) for index in (0, count // 2, count - 1)} if count else {}
    if not probes or not all(map(_is_labelled, probes.values())):
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
    except Exception as error:  # every class reads its files in its own way
        raise DataError(
            f"Item {index} of torchvision's {side.kind.__name__} in {side.root} cannot be read ({error}). "
            "Download the data set again."
        ) from error


def _is_labelled(item: Any) -> bool:
    is_pair = isinstance(item, tuple) and len(item) == 2
    return is_pair and isinstance(item[0], Image.Image) and isinstance(item[1], int | np.integer)


def _labels(dataset: Any, largest: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or ()
    if len(names) <= largest:
        return tuple(str(index) for index in range(largest + 1))
    return tuple(name if isinstance(name, str) else name[0] for name in names)  # ImageNet's are tuples of synonyms


def _pixel_hash(dataset: Any) -> str:
    """sha256 of the pixels where they are in memory; published files do not change, home-made ones may."""
    pixels = getattr(dataset, "data", None)
    if not isinstance(pixels, np.ndarray | torch.Tensor):
        return ""
    return hashlib.sha256(np.asarray(pixels).tobytes()).hexdigest()

"""What DATA may be, and who reads it."""

from pathlib import Path

from kdedge.data.dataset_index import TORCHVISION, Collection, divided
from kdedge.data.readers.image_folder import list_folder, require_folder
from kdedge.data.readers.webdataset import is_shards, list_shards
from kdedge_runtime.errors import UsageError

__all__ = ["require_data", "scan"]


def scan(data: str | Path, *, val_fraction: float = 0.2, seed: int = 0, unlabelled_ok: bool = False) -> Collection:
    """List a data set; no picture is opened.

    Where nobody has set pictures aside for validation, the hash of its name sends each to one side. Frames of one
    video then land on both sides and make validation look better than it is: divide those by hand.

    Args:
        data: a folder (`kdedge.data.readers.image_folder` has the layouts), a data set of torchvision on disk
            (`torchvision:NAME:ROOT`, see `kdedge.data.readers.torchvision_datasets`), or WebDataset shards
            (`kdedge.data.readers.webdataset`).
        val_fraction: share of each class that the hash keeps for validation, in (0, 1).
        seed: another seed divides differently.
        unlabelled_ok: accept pictures without classes; their targets are `UNLABELLED`.

    Raises:
        DataError: there is no such data set, it holds no pictures, or its classes cannot train a classifier.
        UsageError: `val_fraction` is out of range.
        MissingDependency: torchvision needs another package to read this data set.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"The validation fraction must lie between 0 and 1, such as 0.2, got {val_fraction}.")
    text = str(data)
    if text.startswith(TORCHVISION):
        from kdedge.data.readers.torchvision_datasets import (
            list_torchvision,  # brings torchvision, which takes seconds to import
        )

        collection = list_torchvision(text)
    elif is_shards(text):
        collection = list_shards(text, unlabelled_ok=unlabelled_ok)
    else:
        collection = list_folder(Path(data), unlabelled_ok=unlabelled_ok)
    if collection.split == "hashed":
        return divided(collection, val_fraction=val_fraction, seed=seed)
    return collection


def require_data(data: str) -> None:
    """Raise where a folder of pictures is named that is not there; nothing is listed.

    Raises:
        DataError: it is not.
    """
    if not data.startswith(TORCHVISION) and (Path(data).is_dir() or not is_shards(data)):
        require_folder(Path(data))

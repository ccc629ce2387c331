"""Images that the video recorder Frigate has collected for a custom classification model.

```
clips/MODEL/dataset/CLASS/*.jpg|png|webp   verified images
clips/MODEL/dataset/none/…, unknown/…      images of no class
clips/MODEL/train/*.webp                   unverified crops, not used
```

https://docs.frigate.video/configuration/custom_classification/object_classification
"""

from dataclasses import replace
from pathlib import Path

from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.readers.class_folders import list_folder
from kdedge_runtime.util.images import files_below, is_image_file

__all__ = ["find_frigate_dataset", "list_frigate_dataset"]

_DATASET = "dataset"
_UNVERIFIED = "train"
_BESIDE = frozenset({_DATASET, _UNVERIFIED, "temp"})
"""Folders that Frigate creates for a model."""
_MARK = ".training_metadata.json"
"""File that Frigate writes for a trained model."""
_NO_CLASS = frozenset({"none", "unknown"})
_MIN_CLASSES = 2


def find_frigate_dataset(root: Path) -> Path | None:
    """Return Frigate's folder of classes, given it or the folder of the model; None for any other folder.

    Args:
        root: folder that the user gave.
    """
    if not root.is_dir():
        return None
    model = root.resolve()
    if model.name == _DATASET and _is_model(model.parent):
        return model
    return model / _DATASET if _is_model(model) else None


def list_frigate_dataset(dataset: Path) -> DatasetIndex:
    """Index Frigate's folder of classes.

    Images in `none` or `unknown` belong to no class. They are kept out of the splits and listed as skipped, and their
    folder is in `DatasetIndex.unfamiliar` if it has any. With a single other class, `none` is the second class instead,
    since a classifier needs two.

    Raises:
        DataError: the folder has no images, or its classes cannot train a classifier.
    """
    folders = [path for path in dataset.iterdir() if path.is_dir() and not path.name.startswith(".")]
    aside = sorted(path for path in folders if path.name.lower() in _NO_CLASS)
    if len(folders) - len(aside) < _MIN_CLASSES:
        aside = [path for path in aside if path.name.lower() == "unknown"]
    index = list_folder(dataset, unlabeled_ok=False, no_class=[path.name for path in aside])
    filled = [path for path in aside if any(is_image_file(file) for file in files_below(path))]
    return replace(index, unfamiliar=tuple(str(path) for path in filled))


def _is_model(folder: Path) -> bool:
    """Return True for a folder of Frigate with the images of one model."""
    if not (folder / _DATASET).is_dir():
        return False
    below = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if not {path.name for path in below if path.is_dir()} <= _BESIDE or any(is_image_file(path) for path in below):
        return False
    crops = folder / _UNVERIFIED
    is_flat = crops.is_dir() and not any(path.is_dir() for path in crops.iterdir())
    return is_flat or (folder / _MARK).is_file() or (folder.parent.name == "clips" and not crops.exists())

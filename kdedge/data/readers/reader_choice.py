"""Dataset locations and their readers."""

from pathlib import Path

from kdedge.data.dataset_index import TORCHVISION, DatasetIndex, divided
from kdedge.data.readers.image_folder import check_image_folder, list_images
from kdedge.data.readers.webdataset import is_shards
from kdedge.data.splits import UNLABELED, Split
from kdedge.modalities import TRAINING_MODALITIES, modality_of_dataset
from kdedge_runtime.errors import UsageError

__all__ = ["check_data_source", "index_dataset", "list_unlabeled"]


def index_dataset(
    data: str | Path, *, val_fraction: float = 0.2, seed: int = 0, unlabeled_ok: bool = False
) -> DatasetIndex:
    """Index a dataset without opening samples; the first modality that reads it determines the kind of samples.

    Without a validation split, a hash of each name assigns images to the splits. Frames of one video then fall into
    both splits, and validation overestimates accuracy: split such data manually.

    Args:
        data: folder (see `kdedge.data.readers.image_folder` and `frigate` for layouts), torchvision dataset on disk
            (`torchvision:NAME:ROOT`, see `kdedge.data.readers.torchvision_datasets`), or WebDataset shards
            (`kdedge.data.readers.webdataset`).
        val_fraction: fraction of each class used for validation by the hash, in (0, 1).
        seed: seed of the hash.
        unlabeled_ok: True to accept images without classes; their targets are `UNLABELED`.

    Raises:
        DataError: the dataset does not exist, has no images, or its classes cannot train a classifier.
        UsageError: `val_fraction` is out of range.
        MissingDependency: torchvision needs another package to read the dataset.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"The validation fraction must be between 0 and 1, such as 0.2; got {val_fraction}.")
    collection = modality_of_dataset(str(data)).index(str(data), unlabeled_ok=unlabeled_ok)
    if collection.split == "hashed":
        return divided(collection, val_fraction=val_fraction, seed=seed)
    return collection


def list_unlabeled(data: str) -> Split:
    """List the samples of all splits of a dataset without their classes; a folder of images may have any layout.

    Raises:
        DataError: the dataset does not exist or has no samples.
    """
    if modality_of_dataset(data) is TRAINING_MODALITIES["image"] and Path(data).is_dir():
        return list_images(Path(data))
    collection = index_dataset(data, unlabeled_ok=True)
    splits = [split for split in (collection.train, collection.val, collection.test) if split is not None]
    samples = tuple(sample for split in splits for sample in split.samples)
    return Split(samples, (UNLABELED,) * len(samples))


def check_data_source(data: str) -> None:
    """Raise if the dataset folder does not exist; nothing is indexed.

    Raises:
        DataError: the folder does not exist.
    """
    if modality_of_dataset(data) is not TRAINING_MODALITIES["image"]:
        return
    if not data.startswith(TORCHVISION) and (Path(data).is_dir() or not is_shards(data)):
        check_image_folder(Path(data))

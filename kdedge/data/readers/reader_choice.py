"""Dataset locations and their readers."""

from dataclasses import replace
from pathlib import Path

from kdedge.data.dataset_index import TORCHVISION, DatasetIndex, divided
from kdedge.data.dataset_options import NO_OPTIONS, DatasetOptions
from kdedge.data.grouping import check_groups
from kdedge.data.readers.class_folders import IMAGES, check_folder
from kdedge.data.readers.webdataset import is_shards
from kdedge.modalities import TRAINING_MODALITIES, TrainingModality, modality_of_dataset
from kdedge_runtime.errors import DataError, UsageError

__all__ = ["check_data_source", "index_dataset", "require_kind"]


def index_dataset(
    data: str | Path,
    options: DatasetOptions = NO_OPTIONS,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    unlabeled_ok: bool = False,
) -> DatasetIndex:
    """Index a dataset without opening samples; the first modality that reads it determines the kind of samples.

    Without a validation split, a hash of each name assigns samples to the splits. Frames of one video then fall into
    both splits, and validation overestimates accuracy: `group_by` keeps them together.

    Args:
        data: folder (see `kdedge.data.readers.class_folders` and `frigate` for layouts), torchvision dataset on disk
            (`torchvision:NAME:ROOT`, see `kdedge.data.readers.torchvision_datasets`), or WebDataset shards
            (`kdedge.data.readers.webdataset`). Sounds, recordings and tables: see the readers of their modalities.
        options: options of the modality, and groups of samples that stay together.
        val_fraction: fraction of each class used for validation by the hash, in (0, 1). Rows of tables are already
            divided, with 0.2.
        seed: seed of the hash.
        unlabeled_ok: True to accept samples without classes; their targets are `UNLABELED`.

    Raises:
        DataError: the dataset does not exist, has no samples, or its classes cannot train a classifier.
        UsageError: `val_fraction` is out of range, an option does not apply to the samples, or `group_by` is invalid.
        MissingDependency: torchvision needs another package to read the dataset.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"The validation fraction must be between 0 and 1, such as 0.2; got {val_fraction}.")
    modality = modality_of_dataset(str(data))
    _check(str(data), modality)
    for name in sorted(options.given.keys() - modality.dataset_options):
        raise UsageError(f"--{name.replace('_', '-')} does not apply to {data}. Remove it.")
    dataset = modality.index(str(data), options, unlabeled_ok=unlabeled_ok)
    by_option = None if options.group_by is None else modality.groups(dataset, options.group_by)
    if dataset.split == "hashed" and not len(dataset.val):
        group_of = by_option or dataset.group_of
        dataset = divided(dataset, val_fraction=val_fraction, seed=seed, group_of=group_of)
        if group_of is not by_option:
            dataset = replace(dataset, split="recordings")
    if by_option is not None:
        check_groups(dataset, by_option)
    return dataset


def require_kind(data: str, kind: str, name: str) -> None:
    """Raise unless a dataset has samples of the kind that a model takes, before options of the model are applied.

    Args:
        data: location.
        kind: modality of the model, a key of `TRAINING_MODALITIES`.
        name: name of the model in the error.

    Raises:
        DataError: the dataset does not exist.
        UsageError: the samples are of another kind.
    """
    found = modality_of_dataset(data)
    if found is TRAINING_MODALITIES[kind]:
        return
    _check(data, found)
    (other,) = (each for each in TRAINING_MODALITIES if TRAINING_MODALITIES[each] is found)
    raise UsageError(
        f"{name} takes {kind} samples, but {data} has {other} samples. Expected data of the same kind: give others "
        "with --data, or the model that was trained on these."
    )


def check_data_source(data: str) -> None:
    """Raise if a dataset does not exist; nothing is indexed.

    Raises:
        DataError: there is no such folder or file.
    """
    _check(data, modality_of_dataset(data))


def _check(data: str, modality: TrainingModality) -> None:
    # Images are what no other modality reads, so also what does not exist and has no kind yet.
    if modality is not TRAINING_MODALITIES["image"] or data.startswith(TORCHVISION):
        return
    path = Path(data)
    if path.is_dir() or is_shards(data):
        return
    if not path.exists():
        raise DataError(
            f"There is no folder or table {data}. Expected a folder, such as one with a subfolder of samples per "
            "class, or a table (CSV, Parquet)."
        )
    check_folder(path, IMAGES.expected)

"""Validation samples: the split of a dataset, or all samples for a model fitted on none, limited by the memory."""

from dataclasses import replace

from kdedge.data import DatasetIndex, DecodedSamples, Split, decode, index_dataset
from kdedge.data.dataset_index import Divider
from kdedge.data.left_out import leave_out
from kdedge.data.streaming import max_samples_in_memory
from kdedge.models.run_folder import RunRecord
from kdedge.pipelines.exported_files import ExportedFiles
from kdedge.training.compute_device import choose_device
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["choose_validation_samples", "describe_split", "is_training_data", "read_validation_split"]

_DIVIDED: dict[Divider, str] = {
    "folders": "split by folder",
    "shards": "split by shard",
    "official": "official split",
    "recordings": "split by recording",
    "hashed": "split by hash",
}
_AUTOMATIC: tuple[Divider, ...] = ("recordings", "hashed")
"""Splits that kdedge chose; a model fitted on no samples of the user is validated on all of them."""


def choose_validation_samples(files: ExportedFiles, data: str, notes: list[str]) -> tuple[DatasetIndex, DatasetIndex]:
    """Index a dataset and choose its validation samples.

    Samples without a split of their own are divided as for training. They are all validated if neither training nor
    calibration used samples.

    Args:
        files: files under validation.
        data: dataset location.
        notes: receives a note if a part of the samples is not used.

    Returns:
        The dataset, and the dataset without the classes that the run left out, whose validation split is used.

    Raises:
        KdedgeError: the dataset cannot be read, or belongs to another modality or task.
    """
    everything = index_dataset(data, files.options_for(data), unlabeled_ok=True)
    dataset = leave_out(everything, files.left_out)
    dataset.require(files.input, files.fp32.metadata.task, str(files.fp32.path))
    if dataset.split in _AUTOMATIC and not files.is_fitted:
        dataset = replace(dataset, train=Split(), val=dataset.train + dataset.val)
    elif dataset.split in _AUTOMATIC and not is_training_data(dataset, files.record):
        known, count = len(dataset.train), len(dataset.train) + len(dataset.val)
        notes.append(
            f"{known:,} of {count:,} samples of {dataset.name} are not used: the {_DIVIDED[dataset.split]} keeps them "
            "for training and calibration"
        )
    return everything, dataset


def describe_split(dataset: DatasetIndex, files: ExportedFiles) -> str:
    """Return the title of the validation samples."""
    if not len(dataset.train):
        return "all samples"
    group_by = files.options_for(dataset.source).group_by
    groups = "" if group_by is None else f", groups of --group-by {group_by}"
    return f"validation split ({_DIVIDED[dataset.split]}{groups})"


def is_training_data(dataset: DatasetIndex, record: RunRecord | None) -> bool:
    """Return True if these are the samples that the run was trained with, in any location."""
    if record is None:
        return False
    return bool(dataset.source == record.data["source"] or dataset.fingerprint == record.data["fingerprint"])


def read_validation_split(
    dataset: DatasetIndex, spec: InputSpec, progress: ProgressCallback
) -> tuple[DecodedSamples, str | None]:
    """Read the validation samples, or an evenly spaced subset if they exceed half of the memory.

    Args:
        dataset: dataset index.
        spec: input of the model.
        progress: called after every sample.

    Returns:
        The readable samples, and a description of the subset, or None if all are used.
    """
    side = dataset.val
    most = max_samples_in_memory(spec, choose_device("cpu").memory_bytes)
    part = None
    if len(side) > most:
        part = f"{most:,} of {len(side):,} validation samples, evenly spaced: more do not fit in half of the memory"
        side = side.thinned(most)
    return decode(side, spec, progress=progress), part

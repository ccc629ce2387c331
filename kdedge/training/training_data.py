"""Data of a run: the dataset with its unlabeled part, opened for a new run or again for a resumed one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex, index_dataset, subset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.left_out import check_left_out, leave_out
from kdedge.models.run_folder import RunRecord
from kdedge.training.run_callback import RunCallback
from kdedge.training.unlabeled_samples import UnlabeledPart, add_unlabeled
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.tasks import TASKS

__all__ = ["data_record", "index_training_data", "join_unlabeled", "reopen_training_data"]


def data_record(
    request: TrainConfig, dataset: DatasetIndex, train: int, val: int, unlabeled: UnlabeledPart | None = None
) -> dict[str, Any]:
    """Return `RunRecord.data` for the numbers of training and validation samples."""
    return {
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "split": dataset.split,
        "train": train,
        "val": val,
        "schema": dataset.schema,
        "options": request.dataset_options.given,
        "samples_per_class": request.samples_per_class,
        "leave_out": list(request.leave_out),
        "unlabeled": None if unlabeled is None else unlabeled.record,
    }


def index_training_data(
    data: str,
    options: DatasetOptions,
    samples_per_class: int | None,
    left_out: Sequence[str],
    kind: str,
    task: str | None,
) -> DatasetIndex:
    """Index a dataset for a task, or for its own; only a run of the kind `distill` takes one without labels.

    Raises:
        UsageError: samples per class, left-out classes or embeddings are requested of a dataset without classes, or a
            left-out class does not exist.
    """
    dataset = index_dataset(data, options, unlabeled_ok=kind == "distill")
    if task is not None and TASKS[task].has_embedding:
        dataset = _for_embedding(dataset, task)
    if dataset.is_unlabeled and (samples_per_class is not None or left_out):
        option = "--leave-out" if left_out else "--samples-per-class"
        raise UsageError(f"{dataset.source} has no classes. Remove {option}.")
    if left_out:
        check_left_out(dataset, left_out)
        dataset = leave_out(dataset, left_out)
    return dataset if samples_per_class is None else subset(dataset, samples_per_class)


def _for_embedding(dataset: DatasetIndex, task: str) -> DatasetIndex:
    if dataset.is_unlabeled or not TASKS[dataset.task].has_classes:
        raise UsageError(
            f"{dataset.source} has no classes, but --task {task} needs some: their means are the prototypes. "
            "Give labeled samples, and the others with --unlabeled."
        )
    return replace(dataset, task=task)


def join_unlabeled(
    indexed: DatasetIndex,
    labels: tuple[str, ...],
    locations: Sequence[str],
    every_s: float | None,
    callback: RunCallback,
) -> tuple[DatasetIndex, UnlabeledPart | None]:
    """Add unlabeled samples to a dataset, set its labels, and warn about unreadable samples; see `add_unlabeled`."""
    dataset, unlabeled = add_unlabeled(indexed, locations, every_s, callback.on_progress)
    if unlabeled is not None and unlabeled.selection.problems:
        callback.on_warning(f"Unlabeled samples: {unlabeled.selection.problems}")
    return replace(dataset, labels=labels), unlabeled


def reopen_training_data(record: RunRecord, out: Path, callback: RunCallback) -> DatasetIndex:
    """Index the data of a run again.

    Raises:
        DataError: the data or their schema have changed.
    """
    indexed = index_training_data(
        record.data["source"],
        record.dataset_options,
        record.data["samples_per_class"],
        record.left_out,
        record.kind,
        record.task,
    )
    if indexed.fingerprint != record.data["fingerprint"]:
        raise _changed(f"The samples in {indexed.source} have", out)
    if indexed.schema != record.data.get("schema"):
        raise _changed(f"The schema of {indexed.source} has", out)
    kept = record.data.get("unlabeled")
    locations, every_s = ((), None) if kept is None else (kept["locations"], kept["every_s"])
    dataset, unlabeled = join_unlabeled(indexed, record.labels, locations, every_s, callback)
    if (None if unlabeled is None else unlabeled.record) != kept:
        raise _changed(f"The samples in {', '.join(locations) or indexed.source} have", out)
    return dataset


def _changed(what: str, out: Path) -> DataError:
    return DataError(
        f"{what} changed since {out} was started, so it cannot be resumed exactly. Start a new run with another --out."
    )

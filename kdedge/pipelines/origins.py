"""Recover the inputs of a recorded run: its teacher, its samples, and their classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdedge.models.teacher_source import LoadedTeacher, reload_teacher
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.util.arrays import Integers, Targets

__all__ = ["as_model_classes", "is_numbered", "load_origin"]


def load_origin(record: Mapping[str, Any]) -> LoadedTeacher:
    """Load a teacher from the location recorded by its run.

    Args:
        record: record of the teacher, see `LoadedTeacher.record`.

    Raises:
        KdedgeError: the teacher is missing, cannot be loaded, or has changed.
    """
    teacher = reload_teacher(record)
    if record.get("weights_sha256") not in (None, teacher.record["weights_sha256"]):
        raise UsageError(f"The weights of {record['source']} have changed since it was used as a teacher.")
    return teacher


def as_model_classes(targets: Targets, labels: tuple[str, ...], known: tuple[str, ...], source: str) -> Integers:
    """Map class indices of a dataset to those of a model.

    Args:
        targets: `[N]`, indices into the dataset's labels.
        labels: labels of the dataset.
        known: labels of the model.
        source: name of the dataset for error messages.

    Raises:
        DataError: the dataset has classes that the model lacks.
    """
    if labels == known:  # two classes may have the same name, such as ImageNet's cranes
        return targets
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise DataError(
            f"{source} has class folders that the model lacks: {', '.join(unknown[:6])}. "
            f"Expected folders named after the model's {len(known)} labels ({', '.join(known[:6])}, …)."
            + (" To name its classes, export it again with --labels FILE." if is_numbered(known) else "")
            + " To validate without labels, put all samples in one folder."
        )
    mapped: Integers = np.array([known.index(label) for label in labels], dtype=np.int64)[targets]
    return mapped


def is_numbered(labels: tuple[str, ...]) -> bool:
    """Return True if classes are named by their numbers, as in a file of another framework without class names."""
    return labels == tuple(map(str, range(len(labels))))

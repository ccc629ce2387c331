"""What a run came from, found again: its teacher, its pictures, and their classes."""

from pathlib import Path

import numpy as np

from kdedge.data.dataset_index import TORCHVISION
from kdedge.data.readers.webdataset import is_shards
from kdedge.models.run_folder import RunRecord
from kdedge.models.teacher_source import LoadedTeacher, load_teacher
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.util.arrays import Integers

__all__ = ["as_model_classes", "load_origin", "pictures_of"]


def load_origin(source: str, weights: str | None, weights_sha256: str | None) -> LoadedTeacher:
    """A teacher, from where its run found it.

    Args:
        source: a run folder, the name of a network, or an `.onnx` file.
        weights: the file of a network's weights.
        weights_sha256: of what taught; None where it was not noted.

    Raises:
        KdedgeError: the teacher is gone, cannot be loaded, or has changed.
    """
    teacher = load_teacher(source, weights)
    if weights_sha256 not in (None, teacher.record["weights_sha256"]):
        raise UsageError(f"{source} has other weights than when it taught.")
    return teacher


def pictures_of(record: RunRecord, run: str) -> str:
    """The data that a run was trained with.

    Args:
        record: of the run.
        run: its folder.

    Raises:
        DataError: it was a folder which is not there any more.
    """
    source = str(record.data["source"])
    if not source.startswith(TORCHVISION) and not is_shards(source) and not Path(source).exists():
        raise DataError(
            f"{run} was trained with the pictures in {source}, which are not there any more. Say where they are now: "
            "--data DIR"
        )
    return source


def as_model_classes(targets: Integers, labels: tuple[str, ...], known: tuple[str, ...], source: str) -> Integers:
    """Classes as the model counts them.

    Args:
        targets: `[N]`, index into the data's labels.
        labels: the data's.
        known: the model's.
        source: what to call the data in an error.

    Raises:
        DataError: the data has classes that the model does not know.
    """
    if labels == known:  # two classes may have the same name, such as ImageNet's cranes
        return targets
    unknown = [label for label in labels if label not in known]
    if unknown:
        numbered = known == tuple(map(str, range(len(known))))  # a file of another framework, exported without names
        raise DataError(
            f"{source} has class folders that the model does not know: {', '.join(unknown[:6])}. "
            f"Expected folders named after the model's {len(known)} labels ({', '.join(known[:6])}, …)."
            + (" To name its classes, export it again with --labels FILE." if numbered else "")
        )
    mapped: Integers = np.array([known.index(label) for label in labels], dtype=np.int64)[targets]
    return mapped

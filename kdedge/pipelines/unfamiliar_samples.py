"""Unfamiliar samples of a validation: left-out classes, folders of no class in the dataset, and any other samples."""

from kdedge.data import DatasetIndex, Split, decode
from kdedge.data.dataset_index import source_name
from kdedge.data.left_out import left_out_samples
from kdedge.data.samples import StoredSample
from kdedge.data.splits import UNLABELED
from kdedge.training.unlabeled_samples import list_unlabeled
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities import InputSpec, Sample
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["LEFT_OUT", "unfamiliar_samples"]

LEFT_OUT = "left-out classes"
_MOST = 1000
"""Maximum number of samples of a group, evenly spaced."""


def unfamiliar_samples(
    dataset: DatasetIndex,
    left_out: tuple[str, ...],
    unfamiliar: str | None,
    spec: InputSpec,
    progress: ProgressCallback,
) -> dict[str, Sample]:
    """Read unfamiliar samples by the name of their group.

    Args:
        dataset: dataset of the validation, with all classes, and its folders of samples of no class.
        left_out: classes that the model was trained without.
        unfamiliar: location of samples that belong to none of the classes, as for unlabeled ones; None for none.
        spec: input of the model.
        progress: called while samples are read.

    Raises:
        UsageError: the location has samples of another modality.
        DataError: the location has no readable samples.
    """
    groups: dict[str, Sample] = {}
    held = left_out_samples(dataset, left_out)
    if len(held):
        groups[LEFT_OUT] = _read(held, spec, progress)
    for folder in dataset.unfamiliar:
        groups[source_name(folder)] = _read(_all_samples(folder, dataset), spec, progress)
    if unfamiliar is not None:
        samples = _read(_all_samples(unfamiliar, dataset), spec, progress)
        if not len(samples):
            raise DataError(f"{unfamiliar} has no readable samples. Expected samples of none of the classes.")
        name = source_name(unfamiliar)
        groups[unfamiliar if name in groups else name] = samples
    return groups


def _all_samples(location: str, dataset: DatasetIndex) -> Split:
    sources = list_unlabeled(location, dataset)
    samples = tuple(each for source in sources for each in source.samples if isinstance(each, StoredSample))
    return Split(samples, (UNLABELED,) * len(samples))


def _read(split: Split, spec: InputSpec, progress: ProgressCallback) -> Sample:
    return decode(split.thinned(_MOST), spec, progress=progress).samples

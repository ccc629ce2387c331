"""Unfamiliar samples of a validation: left-out classes, folders of no class in the dataset, and any other samples."""

from kdedge.data import DatasetIndex, Split, decode
from kdedge.data.dataset_index import source_name
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.left_out import left_out_samples
from kdedge.data.readers.reader_choice import list_all_samples
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities import InputSpec, Sample
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["LEFT_OUT", "unfamiliar_samples"]

LEFT_OUT = "left-out classes"
_MOST = 1000
"""Maximum number of samples of a group, evenly spaced."""


def unfamiliar_samples(
    collection: DatasetIndex,
    left_out: tuple[str, ...],
    unfamiliar: str | None,
    options: DatasetOptions,
    spec: InputSpec,
    progress: ProgressCallback,
) -> dict[str, Sample]:
    """Read unfamiliar samples by the name of their group.

    Args:
        collection: dataset of the validation, with all classes, and its folders of samples of no class.
        left_out: classes that the model was trained without.
        unfamiliar: location of samples that belong to none of the classes; None for none.
        options: options of reading the dataset of the run, which `unfamiliar` is read with.
        spec: input of the model.
        progress: called while samples are read.

    Raises:
        DataError: the location has no readable samples.
    """
    groups: dict[str, Sample] = {}
    held = left_out_samples(collection, left_out)
    if len(held):
        groups[LEFT_OUT] = _read(held, spec, progress)
    for folder in collection.unfamiliar:
        groups[source_name(folder)] = _read(list_all_samples(folder), spec, progress)
    if unfamiliar is not None:
        samples = _read(list_all_samples(unfamiliar, options), spec, progress)
        if not len(samples):
            raise DataError(f"{unfamiliar} has no readable samples. Expected samples of none of the classes.")
        name = source_name(unfamiliar)
        groups[unfamiliar if name in groups else name] = samples
    return groups


def _read(split: Split, spec: InputSpec, progress: ProgressCallback) -> Sample:
    return decode(split.thinned(_MOST), spec, progress=progress).samples

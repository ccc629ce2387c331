"""Validation samples, limited to the available memory."""

from kdedge.data import DatasetIndex, DecodedSamples, decode
from kdedge.data.streaming import max_samples_in_memory
from kdedge.training.compute_device import choose_device
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["read_validation_split"]


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

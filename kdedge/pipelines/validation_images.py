"""Validation images, limited to the available memory."""

from kdedge.data import DatasetIndex, DecodedSamples, decode
from kdedge.data.streaming import max_images_in_memory
from kdedge.training.compute_device import choose_device
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["read_validation_split"]


def read_validation_split(
    collection: DatasetIndex, spec: InputSpec, progress: ProgressCallback
) -> tuple[DecodedSamples, str | None]:
    """Read the validation images, or an evenly spaced subset if they exceed half of the memory.

    Args:
        collection: dataset index.
        spec: input of the model.
        progress: called after every image.

    Returns:
        The readable images, and a description of the subset, or None if all are used.
    """
    side = collection.val
    most = max_images_in_memory(spec, choose_device("cpu").memory_bytes)
    part = None
    if len(side) > most:
        part = f"{most:,} of {len(side):,} validation images, evenly spaced: more do not fit in half of the memory"
        side = side.thinned(most)
    return decode(side, spec, progress=progress), part

"""Validation images, limited to the available memory."""

from kdedge.data import Collection, Decoded, decode
from kdedge.data.streaming import most_that_fit
from kdedge.training.compute_device import choose_compute
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.util.arrays import evenly_spaced
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["read_validation_side"]


def read_validation_side(
    collection: Collection, spec: ImageInput, progress: ProgressCallback
) -> tuple[Decoded, str | None]:
    """Read the validation images, or an evenly spaced subset if they exceed half of the memory.

    Args:
        collection: Dataset index.
        spec: Input of the model.
        progress: Called after every image.

    Returns:
        The readable images, and a description of the subset, or None if all are used.
    """
    side = collection.val
    most = most_that_fit(spec, choose_compute("cpu").memory_bytes)
    part = None
    if len(side) > most:
        part = f"{most:,} of {len(side):,} validation images, evenly spaced: more do not fit in half of the memory"
        side = side.take(evenly_spaced(len(side), most).tolist())
    return decode(side, spec, progress=progress), part

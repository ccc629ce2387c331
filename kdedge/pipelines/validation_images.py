"""The validation pictures that models are asked about, as many as memory holds."""

from collections.abc import Callable

from kdedge.data import Collection, Decoded, decode
from kdedge.data.streaming import most_that_fit
from kdedge.training.compute_device import choose_compute
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.util.arrays import evenly_spaced

__all__ = ["read_validation_side"]


def read_validation_side(
    collection: Collection, spec: ImageInput, progress: Callable[[str, int, int], None]
) -> tuple[Decoded, str | None]:
    """Read the validation pictures, or an evenly spaced part where all do not fit in half of the memory.

    Args:
        collection: the pictures.
        spec: the model's input.
        progress: told after every picture.

    Returns:
        The pictures that could be read; and where they are a part, which.
    """
    side = collection.val
    most = most_that_fit(spec, choose_compute("cpu").memory_bytes)
    part = None
    if len(side) > most:
        part = f"{most:,} of {len(side):,} validation pictures, evenly spaced: more do not fit in half of the memory"
        side = side.take(evenly_spaced(len(side), most).tolist())
    return decode(side, spec, progress=lambda done, total: progress("reading pictures", done, total)), part

"""Defaults from the data and the device: input size, stem, batch, epochs."""

from collections.abc import Sequence

from kdedge_export.saliency.explained_model import LEAST_CELLS
from kdedge_runtime.errors import UsageError

__all__ = [
    "FEW_EPOCHS",
    "SIZES",
    "check_map_size",
    "choose_batch_size",
    "choose_epochs",
    "choose_recipe",
    "choose_size",
    "requested_stride_factor",
    "stride_factor",
]

SIZES = (32, 48, 64, 96, 128, 160, 192, 224)
LARGEST_ON_CPU = 64
LEAST_MAP_CELLS = 7
"""Cells along each side of a map that can still point at something."""
FEW_IMAGES = 100
"""With fewer pictures a class another recipe works better."""
LEAST_EPOCHS, MOST_EPOCHS = 30.0, 300.0
FEW_EPOCHS = 10
"""With fewer, a network hardly learns: the user should know."""
CPU_BUDGET_S = 15 * 60


def choose_size(typical_px: int, *, on_cpu: bool) -> int:
    """The side of the square input for pictures whose shorter side is typically `typical_px`.

    On a GPU the next size above, so that nothing is lost; on a CPU the next one below, and no more than 64 px: training
    there has minutes, not hours.
    """
    if on_cpu:
        return max((size for size in SIZES if size <= min(typical_px, LARGEST_ON_CPU)), default=SIZES[0])
    return min((size for size in SIZES if size >= typical_px), default=SIZES[-1])


def stride_factor(size: int, strides: Sequence[int]) -> int:
    """How much finer a network must be made for a map of at least 7×7 cells, or as fine as it can be made.

    Args:
        size: side of the input, in px.
        strides: by how much the network divides the resolution, and by how much it can be made to, largest first.
    """
    fine_enough = (stride for stride in strides if size >= LEAST_MAP_CELLS * stride)
    return strides[0] // next(fine_enough, strides[-1])


def requested_stride_factor(output_stride: int, strides: Sequence[int]) -> int:
    """How much finer a network must be made to divide the resolution by `output_stride`.

    Args:
        output_stride: that is asked for.
        strides: as for `stride_factor`.

    Raises:
        UsageError: the network cannot be made to.
    """
    if output_stride not in strides:
        raise UsageError(
            f"The network divides the resolution by {strides[0]}; that cannot become {output_stride}. "
            f"Expected an --output-stride of {', '.join(map(str, strides))}."
        )
    return strides[0] // output_stride


def choose_batch_size(images: int) -> int:
    """Larger sets take larger batches; small sets need the steps."""
    return 128 if images >= 8000 else 64 if images >= 1000 else 32


def choose_recipe(images_per_class: float) -> str:
    """The recipe for a distillation on so many training pictures a class."""
    return "few-images" if images_per_class < FEW_IMAGES else "default"


def choose_epochs(steps: int, steps_per_epoch: int, seconds_per_epoch: float, *, on_cpu: bool) -> int:
    """As many as the recipe's steps make on a GPU; on a CPU as many as fit a quarter of an hour.

    Rounded down to a number with one or two digits, so that the noise of a measurement rarely shows.
    """
    wanted = min(MOST_EPOCHS, max(LEAST_EPOCHS, steps / steps_per_epoch))
    if on_cpu:
        wanted = min(wanted, CPU_BUDGET_S / seconds_per_epoch)
    for step in (50, 20, 10, 5, 2):
        if wanted >= 4 * step:
            return int(wanted // step * step)
    return max(2, int(wanted))


def check_map_size(size: tuple[int, int] | None) -> None:
    """Refuse a map that is too coarse to mean anything.

    Raises:
        UsageError: it has fewer than `LEAST_CELLS` cells along a side.
    """
    if size is not None and min(size) < LEAST_CELLS:
        raise UsageError(
            f"The saliency map would have only {size[0]}×{size[1]} cells; at least {LEAST_CELLS}×{LEAST_CELLS} are "
            "needed to point at anything. Use a larger --size or a finer --output-stride."
        )

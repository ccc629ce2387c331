"""Defaults from the data and the device: input size, stem, batch size and epochs."""

from collections.abc import Sequence

from kdedge_export.saliency.explained_model import MIN_POSITIONS
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.counts import grid_text

__all__ = [
    "DEFAULT_STEPS",
    "FEW_EPOCHS",
    "FEW_FINE_TUNING_EPOCHS",
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
MAX_ON_CPU = 64
MIN_MAP_POSITIONS = 7
"""Minimum map resolution along each side for useful localization."""
FEW_SAMPLES = 100
"""Threshold in samples per class for the few-images recipe."""
DEFAULT_STEPS = 4000
"""Training length of a recipe that sets none, in steps."""
MIN_EPOCHS, MIN_FINE_TUNING_EPOCHS, MAX_EPOCHS = 30.0, 5.0, 300.0
FEW_EPOCHS, FEW_FINE_TUNING_EPOCHS = 10, 3
"""Number of epochs below which a warning is issued."""
CPU_BUDGET_S = 15 * 60


def choose_size(typical_px: int, *, on_cpu: bool) -> int:
    """Return the square input size for images whose shorter side is typically `typical_px`.

    On a GPU the next larger size is used, to keep all detail. On a CPU the next smaller one is used, at most 64 px, to
    keep training within minutes.
    """
    if on_cpu:
        return max((size for size in SIZES if size <= min(typical_px, MAX_ON_CPU)), default=SIZES[0])
    return min((size for size in SIZES if size >= typical_px), default=SIZES[-1])


def stride_factor(size: int, strides: Sequence[int]) -> int:
    """Return the factor by which the output stride must be reduced for a map of at least 7×7, or the largest possible.

    Args:
        size: input size in px.
        strides: output stride of the model and the possible smaller ones, largest first.
    """
    fine_enough = (stride for stride in strides if size >= MIN_MAP_POSITIONS * stride)
    return strides[0] // next(fine_enough, strides[-1])


def requested_stride_factor(output_stride: int, strides: Sequence[int]) -> int:
    """Return the factor by which the output stride must be reduced to become `output_stride`.

    Args:
        output_stride: requested output stride.
        strides: as for `stride_factor`.

    Raises:
        UsageError: the model does not support this output stride.
    """
    if output_stride not in strides:
        raise UsageError(
            f"The model has an output stride of {strides[0]}, which cannot be changed to {output_stride}. "
            f"Expected an --output-stride of {', '.join(map(str, strides))}."
        )
    return strides[0] // output_stride


def choose_batch_size(samples: int) -> int:
    """Return the default batch size; small datasets use small batches to get enough steps."""
    return 128 if samples >= 8000 else 64 if samples >= 1000 else 32


def choose_recipe(kind: str, samples_per_class: float) -> str:
    """Return the default recipe for random weights, for the command and a number of training samples per class."""
    if kind == "train":
        return "labels"
    return "few-images" if samples_per_class < FEW_SAMPLES else "default"


def choose_epochs(
    steps: int, steps_per_epoch: int, seconds_per_epoch: float, *, on_cpu: bool, fine_tuning: bool
) -> int:
    """Return the number of epochs: the recipe's steps on a GPU, or what fits into 15 minutes on a CPU.

    The result is rounded down to one or two significant digits, so that measurement noise rarely changes it.
    """
    least = MIN_FINE_TUNING_EPOCHS if fine_tuning else MIN_EPOCHS
    wanted = min(MAX_EPOCHS, max(least, steps / steps_per_epoch))
    if on_cpu:
        wanted = min(wanted, CPU_BUDGET_S / seconds_per_epoch)
    for step in (50, 20, 10, 5, 2):
        if wanted >= 4 * step:
            return int(wanted // step * step)
    return max(2, int(wanted))


def check_map_size(size: tuple[int, int] | None, spec: InputSpec) -> None:
    """Raise if the map resolution is too low to be meaningful.

    Raises:
        UsageError: A side has fewer than `MIN_POSITIONS` positions.
    """
    if size is not None and spec.positions(size) < MIN_POSITIONS:
        raise UsageError(
            f"The saliency map would be only {grid_text(*size)}; at least {grid_text(MIN_POSITIONS, MIN_POSITIONS)} is "
            "needed for localization. Use a larger --size or a smaller --output-stride."
        )

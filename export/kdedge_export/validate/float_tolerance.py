"""What float32 costs a network: how far PyTorch's own answers lie from what it computes in float64.

Rounding grows on its way through a network that is ill-conditioned, as a deep one is on pictures unlike those that its
batch statistics are of. PyTorch and ONNX Runtime add in another order and approximate exponentials differently; there,
both may lie further from what the weights say than a bound for sound networks, and from each other. How far differs
from picture to picture, so that each is judged by its own; and where rounding may change a map visibly, agreement
within it says nothing.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics import agreement
from kdedge_export.metrics.torch_predictions import Predictions, TorchModel, predict
from kdedge_export.validate.aligned_maps import has_kinks, in_float64, sides_of_float64
from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["CEILING", "Hardest", "Rounding", "hardest", "spread_of_rounding", "tied_by_rounding"]

CEILING = 1e-2
"""The most of a range that rounding may explain: an error that can be seen is never taken for one."""
_TIMES = 4
"""A file may lose two bits more than PyTorch: of two unlucky sums the worse is worth about one."""
_AT_A_TIME = 16
"""Images that are asked about, while some of the last ones were ties."""


Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Hardest:
    """Of some images, the one that decides."""

    error: float
    """Of the file against PyTorch, in units of the image's range."""
    bound: float
    """What this image's may be."""
    rounding: float
    """What float32 would explain of it."""
    outcome: Literal["passed", "failed", "not shown"]
    """`not shown`: float32 would explain the error, and more than may be explained by it."""


def hardest(
    errors: NDArray[np.float64], rounding: NDArray[np.float64], tolerance: float, ceiling: float = CEILING
) -> Hardest:
    """Judge errors, each by the rounding of its own image.

    Args:
        errors: `[N]`, N ≥ 1, in units of each image's range; one that is not finite fails.
        rounding: `[N]`, of the same images (see `spread_of_rounding`).
        tolerance: what needs no explanation.
        ceiling: what no rounding excuses.
    """
    allowed = np.maximum(tolerance, np.nan_to_num(rounding, nan=0.0))
    bounds = np.minimum(allowed, max(tolerance, ceiling))
    broken = ~(errors <= allowed)  # so that a NaN is
    unshown = ~broken & (errors > bounds)
    outcome: Literal["passed", "failed", "not shown"] = (
        "failed" if broken.any() else "not shown" if unshown.any() else "passed"
    )
    candidates = np.flatnonzero(broken if broken.any() else unshown if unshown.any() else errors <= allowed)
    excess = np.nan_to_num(errors[candidates] / bounds[candidates], nan=np.inf)
    worst = candidates[excess.argmax()]
    return Hardest(float(errors[worst]), float(bounds[worst]), float(allowed[worst]), outcome)


@dataclass(frozen=True)
class Rounding:
    """Errors of a file against PyTorch that rounding alone explains, `[N]` each."""

    logits: Scores
    """Largest error in units of the logits' range."""
    kl: Scores
    """KL divergence of the softmax in nats."""
    maps: Scores
    """Largest error in units of the map's range; 0 without maps."""


def spread_of_rounding(module: TorchModel, images: Pixels, classes: Integers) -> Rounding:
    """Measure how far rounding alone may take a file's logits and maps from PyTorch's.

    What rounding does not explain stays as visible as before: in a sound network it is worth some 1e-6.

    Args:
        module: in float32; `Deployed`, or `Plain` without maps.
        images: uint8 RGB `[N, H, W, 3]`.
        classes: int64 `[N]`, explained.

    Returns:
        Four times the largest error in float32 against float64, and 16 times the divergence, which grows with its
        square.
    """
    single = predict(module, images, classes)
    with in_float64(module):
        double = predict(module, images, classes)
    logits = _TIMES * agreement.logits_error(double.logits, single.logits)
    kl = _TIMES**2 * agreement.kl_divergence(double.logits, single.logits)
    if single.maps is None or double.maps is None:
        return Rounding(logits, kl, np.zeros_like(logits))
    # A unit that rounding takes across its kink is no measure of what rounding costs elsewhere (see `kinks`).
    maps = sides_of_float64(module, images, classes) if has_kinks(module) else single.maps
    return Rounding(logits, kl, _TIMES * agreement.map_error(double.maps, maps))


def tied_by_rounding(
    module: TorchModel, images: Pixels, ours: Predictions, theirs: Predictions, ceiling: float = CEILING
) -> int:
    """Images on which a file answers otherwise only since two logits are the same but for rounding.

    Args:
        module: in float32, as for `spread_of_rounding`.
        images: uint8 RGB `[N, H, W, 3]`.
        ours: what the module says of them.
        theirs: what the file says.
        ceiling: the most of the logits' range that rounding may explain.
    """
    first, other = agreement.top1(ours.logits), agreement.top1(theirs.logits)
    differing = np.flatnonzero((first != other) & (first >= 0) & (other >= 0))
    some = ours.logits[differing].astype(np.float64)
    ahead = some[np.arange(len(some)), first[differing]] - some[np.arange(len(some)), other[differing]]
    gaps = ahead / np.ptp(some, axis=1)
    order = np.argsort(gaps, kind="stable")
    ties = 0
    for start in range(0, len(order), _AT_A_TIME):
        chosen = order[start : start + _AT_A_TIME]
        doubted = differing[chosen]
        rounding = spread_of_rounding(module, images[doubted], ours.explained_class[doubted]).logits
        # Each of the two logits may be off by as much.
        tied = int((gaps[chosen] <= 2 * np.minimum(np.nan_to_num(rounding), ceiling)).sum())
        if not tied:
            break
        ties += tied
    return ties

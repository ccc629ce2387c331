"""What float32 costs a network: how far PyTorch's own answers lie from what it computes in float64.

Rounding grows on its way through a network that is ill-conditioned, as a deep one is on pictures unlike those that its
batch statistics are of. PyTorch and ONNX Runtime add in another order and approximate exponentials differently; there,
both may lie further from what the weights say than a bound for sound networks, and from each other.
"""

import numpy as np

from kdedge_export.validate import metrics
from kdedge_export.validate.kinks import has_kinks, in_float64, sides_of_float64
from kdedge_export.validate.predict import TorchModel, predict
from kdedge_runtime.arrays import Integers, Pixels

__all__ = ["spread_of_rounding"]

_TIMES = 4
"""A file may lose two bits more than PyTorch: of two unlucky sums the worse is worth about one."""


def spread_of_rounding(module: TorchModel, images: Pixels, classes: Integers) -> tuple[float, float]:
    """How far rounding alone may take a file's logits and maps from PyTorch's.

    What rounding does not explain stays as visible as before: in a sound network it is worth some 1e-6.

    Args:
        module: in float32; `Deployed`, or `Plain` without maps.
        images: uint8 RGB `[N, H, W, 3]`.
        classes: int64 `[N]`, explained.

    Returns:
        Of logits and of maps, in units of each image's range: four times the largest error in float32 against
        float64; 0 without maps.
    """
    single = predict(module, images, classes)
    with in_float64(module):
        double = predict(module, images, classes)
    logits = np.abs(single.logits - double.logits).max(axis=1) / np.maximum(np.ptp(double.logits, axis=1), 1e-12)
    if single.maps is None or double.maps is None:
        return _TIMES * float(logits.max()), 0.0
    # A unit that rounding takes across its kink is no measure of what rounding costs elsewhere (see `kinks`).
    maps = sides_of_float64(module, images, classes) if has_kinks(module) else single.maps
    return _TIMES * float(logits.max()), _TIMES * float(metrics.map_error(double.maps, maps).max())

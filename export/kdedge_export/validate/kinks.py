"""How far a map moves by itself: the gradient of a network with kinks jumps where rounding decides a side.

A ReLU passes a gradient or stops it by the sign of its input, and max pooling sends it to the largest of its window.
PyTorch and ONNX Runtime add in another order. Of the millions of units that a gradient at the pixels passes, now and
then one lies within rounding of its kink and falls on the other side; both maps are then right, and differ by that
unit's share.
"""

from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from kdedge_export.graph.deployed import Deployed
from kdedge_export.saliency import ByCells, Head
from kdedge_export.validate import metrics
from kdedge_export.validate.predict import predict
from kdedge_runtime.arrays import Integers, Pixels

__all__ = ["has_kinks", "spread_at_kinks"]

DISTURBANCE = 1e-5
"""Standard deviation, as a share of the range of a normalised picture: 0.003 grey levels, which nobody sees. Some ten
times what float32 loses on the way to a unit, so that the units near a kink are all met, not by chance."""
_TRIALS = 8
"""Each sends a unit at its kink to either side; that all leave it where it was has a chance of 1 in 256."""


def has_kinks(module: nn.Module) -> TypeGuard[Deployed]:
    """Whether a map is differentiated, so that it can jump; a closed form is continuous."""
    if not isinstance(module, Deployed):
        return False
    return not (isinstance(module.explained, ByCells) and isinstance(module.explained.head, Head))


def spread_at_kinks(module: Deployed, images: Pixels, classes: Integers) -> float:
    """The largest move of PyTorch's own maps when the normalised pictures are disturbed by `DISTURBANCE`.

    An exported graph may differ by as much: it is exact for a picture that nobody can tell from the one it was given.

    Args:
        module: its maps are differentiated (`has_kinks`).
        images: uint8 RGB `[N, H, W, 3]`.
        classes: int64 `[N]`, explained.

    Returns:
        In units of each map's range, ≥ 0.
    """
    generator = torch.Generator().manual_seed(0)

    def disturb(_module: nn.Module, _images: object, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        reach = x.amax(dim=(1, 2, 3), keepdim=True) - x.amin(dim=(1, 2, 3), keepdim=True)
        return x + DISTURBANCE * reach * noise

    undisturbed = predict(module, images, classes).maps
    assert undisturbed is not None
    handle = module.normalise.register_forward_hook(disturb)
    try:
        moved = [predict(module, images, classes).maps for _ in range(_TRIALS)]
    finally:
        handle.remove()
    return float(np.max([metrics.map_error(undisturbed, maps) for maps in moved if maps is not None]))

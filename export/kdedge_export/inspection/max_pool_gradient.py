"""Derivative of max-pooling, for gradient × activation.

Positions that share a window's maximum each receive the whole gradient, while PyTorch gives it to one. After a ReLU
such positions are zero and carry no evidence, so that the evidence is the same. Grad-CAM's channel weights would
differ, so exported maps do not use this rule.
"""

from typing import Any

import numpy as np

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, RuleContext
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["max_pool_gradient"]

_FLOATS_CAN_BE_EQUAL_SINCE = 11
"""First opset in which `Equal` accepts floats."""


def max_pool_gradient(step: RuleContext) -> dict[str, str]:
    """Distribute each window's gradient to the positions of its maximum.

    Every offset in the window is a convolution that selects one position, and a transposed one that restores it.

    Args:
        step: context of a MaxPool on `[N, C, H, W]` with the gradient of its output.

    Returns:
        The name of the input's gradient, by the input's name.

    Raises:
        CannotDifferentiate: the pool is dilated, automatically padded or not 2-D, or the opset cannot compare floats.
    """
    given, add = attributes(step.node), step.builder.add
    x, y = step.node.input[0], step.node.output[0]
    kernel = tuple(given["kernel_shape"])
    is_plain = set(given.get("dilations", [1])) == {1} and given.get("auto_pad", b"NOTSET") == b"NOTSET"
    if not is_plain or step.builder.opset < _FLOATS_CAN_BE_EQUAL_SINCE or len(kernel) != 2:
        raise CannotDifferentiate("dilated or automatically padded MaxPool")
    channels, dtype = step.shape(x)[1], step.values[y].dtype
    geometry = _geometry(step, kernel, given) | {"group": channels, "kernel_shape": kernel}
    unseen = geometry.pop("output_padding")
    total = ""
    for offset in np.ndindex(*kernel):
        picker = np.zeros((channels, 1, *kernel), dtype=dtype)
        picker[(slice(None), 0, *offset)] = 1
        weight = step.builder.constant(picker)
        is_maximum = add("Equal", add("Conv", x, weight, **geometry), y)
        there = add("Where", is_maximum, step.grad, step.number(0.0))
        part = add("ConvTranspose", there, weight, **geometry, output_padding=unseen)
        total = add("Add", total, part) if total else part
    return {x: total}


def _geometry(step: RuleContext, kernel: tuple[int, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Return strides and pads whose windows cover the input exactly, with or without ceil_mode."""
    sizes, outputs = (step.shape(name)[2:] for name in (step.node.input[0], step.node.output[0]))
    strides, pads = given.get("strides", [1, 1]), given.get("pads", [0, 0, 0, 0])
    covered = [(outputs[axis] - 1) * strides[axis] + kernel[axis] for axis in (0, 1)]
    ends = [max(covered[axis] - sizes[axis] - pads[axis], 0) for axis in (0, 1)]
    unseen = [sizes[axis] + pads[axis] + ends[axis] - covered[axis] for axis in (0, 1)]
    return {"strides": strides, "pads": [*pads[:2], *ends], "output_padding": unseen}

"""The derivative of pooling by maxima, for evidence that is gradient times activation.

Where several cells of a window share its maximum, each gets the whole gradient; PyTorch gives it to one. After a ReLU
such cells are zeros, which hold no evidence, so that the evidence is the same. Channel weights of Grad-CAM would not
be: maps that are written into files do not go through this rule.
"""

from typing import Any

import numpy as np

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, Step
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["max_pool"]

_FLOATS_CAN_BE_EQUAL_SINCE = 11
"""The opset whose `Equal` takes floats."""


def max_pool(step: Step) -> dict[str, str]:
    """Each window's gradient goes to the cells that hold its maximum.

    Every offset in the window is a convolution that picks one cell, and a transposed one that puts it back.

    Args:
        step: at a MaxPool of `[N, C, H, W]`, whose gradient is that of its output.

    Returns:
        The name of the gradient of its input, by the input's name.

    Raises:
        CannotDifferentiate: it is dilated, pads by itself, is not over two axes, or its opset compares no floats.
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


def _geometry(step: Step, kernel: tuple[int, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Strides and pads with which windows cover the input exactly, rounded up or not."""
    sizes, outputs = (step.shape(name)[2:] for name in (step.node.input[0], step.node.output[0]))
    strides, pads = given.get("strides", [1, 1]), given.get("pads", [0, 0, 0, 0])
    covered = [(outputs[axis] - 1) * strides[axis] + kernel[axis] for axis in (0, 1)]
    ends = [max(covered[axis] - sizes[axis] - pads[axis], 0) for axis in (0, 1)]
    unseen = [sizes[axis] + pads[axis] + ends[axis] - covered[axis] for axis in (0, 1)]
    return {"strides": strides, "pads": [*pads[:2], *ends], "output_padding": unseen}

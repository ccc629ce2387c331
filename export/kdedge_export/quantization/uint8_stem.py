"""uint8 stem: the first convolution reads the image bytes directly, since they are already quantized.

A pixel `u` is a uint8 with scale 1 and a free zero point `z`. Casting, subtracting the mean and multiplying can
therefore be removed: the scale is folded into the weights, and the mean into the bias. The first convolution then has
no quantization error at its input.

Three channels are the slowest case of the integer kernels, since each tap copies three bytes. If the width allows, four
adjacent pixels are therefore treated as one position of twelve channels, by a reshape without copying. Their outputs
are treated as channels, again by a reshape. Weights outside the original window are 0 and stay 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kdedge_export.onnx_graph.edits import (
    constant_input,
    gated_product,
    has_input,
    initializer,
    make_node,
    replace_node,
)

__all__ = ["CENTERED", "quantize_stem"]

CENTERED = "centered_pixels"
"""Name of the tensor of pixels minus their zero point; its uint8 quantization at scale 1 equals the pixels."""
_GROUP = 4
"""Pixels per position; 12 channels fit the kernels' blocks of four bytes. Measured on a VNNI core at 224 px: 0.20
vs. 0.36 ms for 32 channels of 3 × 3, 1.00 vs. 1.18 ms for 64 of 7 × 7; 2 and 8 pixels are slower."""

_ROUNDING = 0.5
"""Largest error of a border, in pixel values, that is padded with the zero point."""


@dataclass(frozen=True)
class _Front:
    """Preprocessing and first convolution."""

    image: ir.Value
    mean: NDArray[np.float64]
    """Mean in pixel values, `[3]`."""
    scale: NDArray[np.float64]
    conv: ir.Node
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    """Bias of the convolution; 0 without one."""


def quantize_stem(graph: ir.Graph) -> int | None:
    """Rewrite a graph so that its first convolution takes pixels minus a zero point.

    The border was padded with the mean color. One zero point cannot represent three different means. If they differ,
    the border is added around the image bytes, rounded to whole pixel values. This is the only change of the computed
    function.

    Returns:
        The zero point `z`, or None if the preprocessing is not that of `Normalize`, in which case it is unchanged.
    """
    front = _front(graph)
    if front is None:
        return None
    zero = round(float(front.mean.mean()))
    conv, tensor, group, weight_name = front.conv, front.image, 1, front.conv.inputs[1].name
    _, height, width, _ = tensor.shape
    kernel = front.weight * front.scale[:, None, None]
    shift = front.bias + (kernel * (zero - front.mean)[:, None, None]).sum(axis=(1, 2, 3))
    settings = {name: attribute.value for name, attribute in conv.attributes.items()}
    nodes: list[ir.Node] = []
    grouped = _grouped(kernel, settings, width)
    if grouped is not None:
        filters = len(kernel)
        kernel, settings, outputs = grouped
        group = _GROUP
        size = initializer(graph, "pixel_groups", np.array([0, height, width // group, 3 * group]))
        nodes.append(make_node("Reshape", [tensor, size], "grouped_pixels"))
        tensor = nodes[-1].outputs[0]
        shift = np.tile(shift, outputs)
        (above, _, below, _), (reach, _), (step, _) = (settings[name] for name in ("pads", "kernel_shape", "strides"))
        rows = (height + above + below - reach) // step + 1
        _ungroup(graph, conv, filters, (rows, width // group * outputs))
    if np.abs(front.mean - zero).max() > _ROUNDING and any(settings.get("pads", [0])):
        color = np.tile(np.rint(front.mean), group).astype(np.uint8)
        frame, tensor = _frame(graph, front.image, tensor, (height, width // group), color, settings)
        nodes += frame
        settings = settings | {"pads": [0, 0, 0, 0]}
    pixels = make_node("Transpose", [tensor], "pixels", perm=[0, 3, 1, 2])
    cast = make_node("Cast", pixels.outputs, "float_pixels", to=ir.DataType.FLOAT.value)
    zero_point = initializer(graph, "pixel_zero", np.array(zero, np.float32))
    centered = make_node("Sub", [*cast.outputs, zero_point], CENTERED)
    inputs = [
        *centered.outputs,
        initializer(graph, weight_name, kernel.astype(np.float32)),
        initializer(graph, f"{weight_name}_bias", shift.astype(np.float32)),
    ]
    first = make_node("Conv", inputs, conv.outputs[0].name, conv.name, **settings)
    replace_node(conv, [*nodes, pixels, cast, centered, first])
    return zero


def _frame(
    graph: ir.Graph,
    image: ir.Value,
    tensor: ir.Value,
    size: tuple[int, int],
    color: NDArray[np.uint8],
    settings: dict[str, Any],
) -> tuple[list[ir.Node], ir.Value]:
    """Add a border of one color around `tensor`, uint8 `[N, *size, len(color)]`, as wide as a convolution needs."""
    batch = make_node("Shape", [image], "batch", start=0, end=1)
    nodes = [batch]
    for axis, side in ((2, "columns"), (1, "rows")):
        before, after = settings["pads"][axis - 1], settings["pads"][axis + 1]
        step, reach = settings["strides"][axis - 1], settings["kernel_shape"][axis - 1]
        steps = (size[axis - 1] + before + after - reach) // step
        parts, wides = {"": tensor}, 0
        for place, wide in (("before", before), ("after", max(0, steps * step + reach - size[axis - 1] - before))):
            if wide == 0:
                continue
            shape = [*size, len(color)]
            shape[axis - 1] = wide
            name = f"{side}_{place}"
            rest = initializer(graph, f"{name}_shape", np.array(shape))
            border = initializer(graph, f"{name}_colour", np.broadcast_to(color, (1, *shape)))
            whole = make_node("Concat", [*batch.outputs, rest], f"{name}_size", axis=0)
            expanded = make_node("Expand", [border, *whole.outputs], name)
            nodes += [whole, expanded]
            parts[place] = expanded.outputs[0]
            wides += wide
        if wides:
            inputs = [parts[place] for place in ("before", "", "after") if place in parts]
            nodes.append(make_node("Concat", inputs, f"framed_{side}", axis=axis))
            tensor = nodes[-1].outputs[0]
            if axis == 2:
                size = size[0], size[1] + wides
    return nodes, tensor


def _front(graph: ir.Graph) -> _Front | None:
    """Match uint8 input → Transpose → Cast → Sub(mean) → Mul(scale) → Conv without other readers, else None."""
    image = next((value for value in graph.inputs if value.dtype == ir.DataType.UINT8), None)
    if image is None:
        return None
    tensor, nodes = image, []
    for operation in ("Transpose", "Cast", "Sub", "Mul", "Conv"):
        readers = tensor.consumers()
        if len(readers) != 1 or readers[0].op_type != operation or readers[0].inputs[0] is not tensor:
            return None
        nodes.append(readers[0])
        tensor = readers[0].outputs[0]
    mean, scale, weight = (constant_input(node, 1) for node in nodes[2:])
    conv = nodes[4]
    bias = constant_input(conv, 2) if has_input(conv, 2) else np.zeros(1)
    if mean is None or scale is None or weight is None or bias is None:
        return None
    if mean.size != 3 or scale.size != 3 or conv.attributes.get_int("group", 1) != 1:
        return None
    if "pads" not in conv.attributes and conv.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    mean, scale = mean.reshape(3).astype(float), scale.reshape(3).astype(float)
    return _Front(image, mean, scale, conv, weight.astype(float), bias.astype(float))


def _grouped(
    kernel: NDArray[np.float64], settings: dict[str, Any], width: int
) -> tuple[NDArray[np.float64], dict[str, Any], int] | None:
    """Return the kernel, settings and outputs per group of the same convolution on groups of pixels.

    Returns None if the sizes do not divide, or if a group has so many outputs that the cost exceeds the savings.
    """
    filters, channels, rows, columns = kernel.shape
    strides, pads = settings.get("strides", [1, 1]), settings.get("pads", [0, 0, 0, 0])
    stride, left, right = strides[1], pads[1], pads[3]
    out_width = (width + left + right - columns) // stride + 1
    if set(settings.get("dilations", [1])) != {1} or width % _GROUP or stride not in (2, 4):
        return None
    if out_width * stride != width:
        return None
    outputs = _GROUP // stride
    first = -left // _GROUP
    last = ((outputs - 1) * stride - left + columns - 1) // _GROUP
    if first > 0 or last < 0:
        return None
    wide = np.zeros((outputs, filters, _GROUP, channels, rows, last - first + 1))
    for output in range(outputs):
        for column in range(columns):
            group, pixel = divmod(output * stride - left + column, _GROUP)
            wide[output, :, pixel, :, :, group - first] = kernel[:, :, :, column]
    changed = {
        "kernel_shape": [rows, last - first + 1],
        "strides": [strides[0], 1],
        "pads": [pads[0], -first, pads[2], last],
        "dilations": [1, 1],
        "group": 1,
    }
    return wide.reshape(outputs * filters, _GROUP * channels, rows, last - first + 1), changed, outputs


def _ungroup(graph: ir.Graph, conv: ir.Node, filters: int, size: tuple[int, int]) -> None:
    """Convert grouped outputs back to positions after the convolution and its activation."""
    grouped = _after_activation(conv.outputs[0])
    shape = initializer(graph, "pixel_positions", np.array([0, *size, filters]))
    turned = make_node("Transpose", [grouped], "grouped_positions", perm=[0, 2, 3, 1])
    positions = make_node("Reshape", [*turned.outputs, shape], "positions")
    ungrouped = make_node("Transpose", positions.outputs, "ungrouped", perm=[0, 3, 1, 2])
    for reader, index in grouped.uses():
        if reader is not turned:
            reader.replace_input_with(index, ungrouped.outputs[0])
    graph.insert_after(grouped.producer(), [turned, positions, ungrouped])


def _after_activation(tensor: ir.Value) -> ir.Value:
    """Return the result of the elementwise function that is a tensor's only reader, if any, including SiLU."""
    readers = sorted(tensor.consumers(), key=lambda node: node.op_type)
    kinds = [node.op_type for node in readers]
    if kinds in (["Relu"], ["Clip"], ["HardSwish"], ["LeakyRelu"], ["Sigmoid"]):
        return readers[0].outputs[0]
    product = gated_product(readers[1]) if kinds == ["Mul", "Sigmoid"] else None
    return tensor if product is None else product.outputs[0]

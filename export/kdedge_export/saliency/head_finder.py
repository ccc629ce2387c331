"""Head finder: detect a model's head from one traced forward pass, for any architecture."""

import torch
from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency.closed_form_head import (
    ACTIVATIONS,
    ActivationLayer,
    ClosedFormHead,
    CosineHeadLayer,
    DenseHeadLayer,
    HeadLayer,
)
from kdedge_export.saliency.cosine_layer import CosineLayer
from kdedge_export.saliency.tracing import Operation, Trace, trace

__all__ = ["find_dense_network", "find_head"]

_RESHAPING = {
    "view",
    "_unsafe_view",
    "reshape",
    "squeeze",
    "unsqueeze",
    "alias",
    "clone",
    "flatten",
    "detach",
    "as_strided_",  # preserves the memory format of pooled tensors
}
_POOLING = {"mean", "_adaptive_avg_pool2d", "avg_pool2d"}
_TOLERANCE = 1e-3
"""Tolerance on the logits relative to the largest; TF32 matrix products have errors of this size."""


def find_head(model: nn.Module, example: Tensor) -> ClosedFormHead:
    """Find the closed-form head by walking back from the logits to the pooled activations.

    Args:
        model: a classifier, float `[N, 3, H, W]` to logits `[N, K]`.
        example: one input at the model's input size.

    Raises:
        HeadNotSupported: the logits are not dense layers on globally averaged activations; the message names the
            operations found instead.
    """
    record = trace(model, example)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers: list[HeadLayer] = []
    tensor, index = record.logits, len(record.operations)
    if (cosine := _cosine(model, record)) is not None:
        layer, tensor, index = cosine
        layers.append(layer)
    while True:
        step = record.producer(tensor, index)
        if step is None:
            raise _refusal(model, _ending(record, index))
        index, operation = step
        if operation.name in _RESHAPING:
            tensor = operation.inputs[0]
        elif (dense := _dense(operation, record, names)) is not None:
            dense_layer, tensor = dense
            layers.insert(0, dense_layer)
        elif (activation := _activation(operation)) is not None:
            layers.insert(0, activation)
            tensor = operation.inputs[0]
        elif _is_global_average(operation) and layers and not isinstance(layers[-1], ActivationLayer):
            break
        else:
            raise _refusal(model, _ending(record, index))
    activations = operation.inputs[0]
    if activations.shape[2:] == (1, 1):
        raise _refusal(model, "its pooled activations have a single spatial position")
    if id(activations) in record.outputs:
        head = ClosedFormHead(record.outputs[id(activations)], takes_input=False, layers=tuple(layers))
    elif id(activations) in record.inputs:
        head = ClosedFormHead(record.inputs[id(activations)], takes_input=True, layers=tuple(layers))
    else:
        raise _refusal(model, "its pooled activations are neither the input nor the output of a module that runs once")
    # Operation names are not sufficient: pooling may exclude a border, and a product may be scaled.
    with torch.no_grad():
        difference = head.logits(model, activations.mean(dim=(2, 3))) - record.logits
    if float(difference.abs().max()) > _TOLERANCE * float(record.logits.abs().max()):
        raise _refusal(model, f"{_ending(record, index)} does not reproduce the logits of {head.name}")
    return head


def find_dense_network(model: nn.Module, example: Tensor) -> tuple[HeadLayer, ...]:
    """Find the layers of a network that consists of dense layers and activations, and ends in a dense layer.

    Args:
        model: network, float `[N, C, h, w]` to logits `[N, K]`.
        example: one input `[1, C, h, w]`.

    Raises:
        HeadNotSupported: the network has other operations; the message names them.
    """
    record = trace(model, example)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers: list[HeadLayer] = []
    tensor, index = record.logits, len(record.operations)
    while tensor is not example:
        step = record.producer(tensor, index)
        if step is None:
            break
        index, operation = step
        if operation.name in _RESHAPING:
            tensor = operation.inputs[0]
        elif (dense := _dense(operation, record, names)) is not None:
            dense_layer, tensor = dense
            layers.insert(0, dense_layer)
        elif (activation := _activation(operation)) is not None and layers:
            layers.insert(0, activation)
            tensor = operation.inputs[0]
        else:
            break
    if tensor is not example or not layers:
        raise HeadNotSupported(
            f"{_name(model)} does not consist of dense layers and activations: {_ending(record, index)}. Choose "
            "another --method, such as integrated-gradients."
        )
    return tuple(layers)


def _cosine(model: nn.Module, record: Trace) -> tuple[CosineHeadLayer, Tensor, int] | None:
    """Return the cosine layer that returns the logits, its input and the index after the input's operation.

    None if there is no such layer.
    """
    path = record.outputs.get(id(record.logits))
    if path is None or not isinstance(model.get_submodule(path), CosineLayer):
        return None
    for index, operation in enumerate(record.operations):
        if record.inputs.get(id(operation.output)) == path:
            return CosineHeadLayer(path), operation.output, index + 1
    return None


def _dense(operation: Operation, record: Trace, names: dict[int, str]) -> tuple[DenseHeadLayer, Tensor] | None:
    """Return a dense layer and its input tensor if the operation is one, else None."""
    if operation.name in {"addmm", "mm"} and not operation.options:
        *bias, value, transposed = operation.inputs
        source = record.producer(transposed)
        weight = source[1].inputs[0] if source is not None and source[1].name == "t" else None
    elif operation.name == "convolution" and operation.inputs[0].shape[2:] == (1, 1):
        value, weight, *bias = operation.inputs
        if weight.shape[2:] != (1, 1) or weight.shape[1] != value.shape[1]:
            return None
    else:
        return None
    if weight is None or id(weight) not in names or any(id(term) not in names for term in bias):
        return None
    return DenseHeadLayer(names[id(weight)], names[id(bias[0])] if bias else None), value


def _activation(operation: Operation) -> ActivationLayer | None:
    name = operation.name.removesuffix("_")
    if name == "hardtanh" and operation.arguments[1:] == (0.0, 6.0):
        return ActivationLayer("relu6")
    if operation.options:  # the tanh approximation of GELU, which has a different derivative
        return None
    return ActivationLayer(name) if name in ACTIVATIONS else None


def _is_global_average(operation: Operation) -> bool:
    if operation.name not in _POOLING:
        return False
    source = operation.inputs[0]
    if source.ndim != 4:
        return False
    if operation.name == "mean":
        dims = operation.arguments[1:]
        spatial = {int(dim) % 4 for dim in dims if isinstance(dim, int) and not isinstance(dim, bool)}
        return spatial == {2, 3}
    return operation.output.shape[2:] == (1, 1)


def _ending(record: Trace, start: int) -> str:
    """Describe the operations from an index on, at least four."""
    names: list[str] = []
    for index in reversed(range(len(record.operations))):
        name = record.operations[index].name
        if name not in _RESHAPING | {"t"} and (index >= start or len(names) < 4):
            names.insert(0, name.strip("_"))
    return f"its head ends in {' → '.join(names)}"


def _refusal(model: nn.Module, why: str) -> HeadNotSupported:
    return HeadNotSupported(
        f"{_name(model)} has no closed-form saliency map: {why}. Supported heads are global average pooling followed "
        "by dense layers (ResNet, RegNet, EfficientNet, MobileNetV2 and V3, …). Choose such a model, or export "
        "without a map: --method none."
    )


def _name(model: nn.Module) -> str:
    return type(model).__name__

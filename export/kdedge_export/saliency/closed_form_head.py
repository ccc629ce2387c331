"""Closed-form heads: global average pooling followed by dense layers and activations, or by a cosine layer at the end.

With the target layer's activations `A [N, C, h, w]`, pooled features `p = mean_ij A`, and logits `z = f(p)`, the
gradient of a logit is the same at every position: `dz_c/dA_kij = (dz_c/dp_k) / (h·w)`. Grad-CAM's channel weights are
therefore `dz_c/dp / (h·w)`, and `dz_c/dp` is a short product through the dense layers. It is computed by forward
operations, so that nothing is left to differentiate in training or export.

Source: Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2 without the ReLU; for one dense layer this is Zhou et al.,
CAM, CVPR 2016, divided by `h·w`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge_export.saliency.cosine_layer import CosineLayer

__all__ = [
    "ACTIVATIONS",
    "ActivationLayer",
    "ClosedFormHead",
    "CosineHeadLayer",
    "DenseHeadLayer",
    "HeadLayer",
    "apply_layer",
    "weight_matrix",
]


def _hardswish_slope(x: Tensor) -> Tensor:
    return torch.where(x <= -3, 0.0, torch.where(x >= 3, 1.0, x * (1 / 3) + 0.5))


def _relu_slope(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


def _relu6_slope(x: Tensor) -> Tensor:
    return ((x > 0) & (x < 6)).to(x.dtype)


def _silu_slope(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


def _gelu_slope(x: Tensor) -> Tensor:
    density = torch.exp(-0.5 * x * x) * 0.3989422804014327  # 1 / sqrt(2 pi)
    return 0.5 * (1 + torch.erf(x * 0.7071067811865476)) + x * density


def _tanh_slope(x: Tensor) -> Tensor:
    return 1 - torch.tanh(x) ** 2


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu": (F.relu, _relu_slope),
    "relu6": (F.relu6, _relu6_slope),
    "hardswish": (F.hardswish, _hardswish_slope),
    "silu": (F.silu, _silu_slope),
    "gelu": (F.gelu, _gelu_slope),
    "tanh": (torch.tanh, _tanh_slope),
}
"""Elementwise activations and their derivatives, by the name of the ATen operator."""


@dataclass(frozen=True)
class DenseHeadLayer:
    """Dense layer of the head, by the names of its parameters in the model."""

    weight: str
    """Name of the `[out, in]` matrix, or of the `[out, in, 1, 1]` kernel of a 1×1 convolution on pooled features."""
    bias: str | None


@dataclass(frozen=True)
class ActivationLayer:
    """Elementwise activation of the head."""

    name: str


@dataclass(frozen=True)
class CosineHeadLayer:
    """Cosine layer at the end of the head."""

    path: str
    """Module path of the `CosineLayer`."""

    def layer(self, model: nn.Module) -> CosineLayer:
        """Return the layer of the model."""
        layer = model.get_submodule(self.path)
        assert isinstance(layer, CosineLayer)
        return layer


HeadLayer = DenseHeadLayer | ActivationLayer | CosineHeadLayer


@dataclass(frozen=True)
class ClosedFormHead:
    """Closed-form head: the pooled layer and the layers that compute the logits."""

    target_layer: str
    """Module path of the layer that returns (or, for a pooling layer, takes) the pooled activations."""
    takes_input: bool
    """True if the activations are the module's input rather than its output."""
    layers: tuple[HeadLayer, ...]
    """Layers from the pooled features to the logits, without dropout; a cosine layer is the last one."""

    @property
    def name(self) -> str:
        """Short description of the head, such as `GAP+Linear` or `GAP+Linear+hardswish+Linear`."""
        return "+".join(["GAP", *map(_title, self.layers)])

    def logits(self, model: nn.Module, pooled: Tensor) -> Tensor:
        """Compute logits `[N, K]` from pooled features, float `[N, C]`."""
        for layer in self.layers:
            pooled = apply_layer(layer, model, pooled)
        return pooled

    def channel_weights(self, model: nn.Module, pooled: Tensor, classes: Tensor) -> Tensor:
        """Compute the gradient of chosen logits with respect to the pooled features.

        Args:
            model: the model that holds the head's parameters.
            pooled: float `[N, C]`.
            classes: int64 `[N, k]`.

        Returns:
            float `[N, k, C]`.
        """
        steps: list[tuple[str, Tensor]] = []
        value = pooled
        for layer in self.layers[:-1]:
            if isinstance(layer, DenseHeadLayer):
                steps.append(("dense", weight_matrix(model, layer.weight)))
            else:
                assert isinstance(layer, ActivationLayer)
                slope = ACTIVATIONS[layer.name][1]
                steps.append(("slope", slope(value)))
            value = apply_layer(layer, model, value)
        last = self.layers[-1]
        if isinstance(last, CosineHeadLayer):
            gradient = last.layer(model).gradients(value, classes)
        else:
            assert isinstance(last, DenseHeadLayer)
            gradient = F.embedding(classes, weight_matrix(model, last.weight).to(pooled.dtype))  # a Gather in the graph
        for kind, factor in reversed(steps):
            gradient = gradient @ factor.to(pooled.dtype) if kind == "dense" else gradient * factor[:, None]
        return gradient


def _title(layer: HeadLayer) -> str:
    if isinstance(layer, ActivationLayer):
        return layer.name
    return "Linear" if isinstance(layer, DenseHeadLayer) else "cosine"


def apply_layer(layer: HeadLayer, model: nn.Module, value: Tensor) -> Tensor:
    """Compute the output of a layer, float `[N, out]`, from its input `[N, in]`."""
    if isinstance(layer, ActivationLayer):
        return ACTIVATIONS[layer.name][0](value)
    if isinstance(layer, CosineHeadLayer):
        similarities: Tensor = layer.layer(model)(value)
        return similarities
    bias = None if layer.bias is None else model.get_parameter(layer.bias).to(value.dtype)
    return F.linear(value, weight_matrix(model, layer.weight).to(value.dtype), bias)


def weight_matrix(model: nn.Module, name: str) -> Tensor:
    """Return the weights of a dense layer by name, `[out, in]`."""
    return model.get_parameter(name).flatten(1)

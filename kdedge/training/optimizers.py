"""Optimizers with a learning rate per layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from kdedge.config.recipe_file import Optimizer as OptimizerName
from kdedge.training.compute_device import ComputeDevice

__all__ = ["layer_scales", "make_optimizer", "set_learning_rate"]

_SCALE = "scale"


def make_optimizer(
    name: OptimizerName,
    model: nn.Module,
    others: nn.Module,
    compute: ComputeDevice,
    *,
    weight_decay: float,
    decay: float,
) -> Optimizer:
    """Create the optimizer of a model and its auxiliary layers; `set_learning_rate` sets its rate.

    AdamW does not decay biases and the scales of normalization, as is common in fine-tuning.

    Args:
        name: `sgd` with Nesterov momentum 0.9, or `adamw`.
        model: model in training.
        others: auxiliary layers, trained at the full rate.
        compute: device; compiled steps need a learning rate in device memory.
        weight_decay: weight decay.
        decay: learning rate of the first layer relative to the last; see `layer_scales`.
    """
    scales = [*layer_scales(model, decay), *((parameter, 1.0) for parameter in others.parameters())]
    shared: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, scale in scales:
        decays = name == "sgd" or parameter.ndim > 1
        shared.setdefault((scale, weight_decay if decays else 0.0), []).append(parameter)
    groups = [
        # Compiled steps read the rate from a tensor, so that the CUDA graph uses the current one.
        {"params": params, _SCALE: scale, "weight_decay": own, "lr": _rate(compute)}
        for (scale, own), params in shared.items()
    ]
    if name == "adamw":
        return AdamW(groups, fused=compute.compiled, capturable=compute.compiled)
    return SGD(groups, momentum=0.9, nesterov=True, fused=compute.compiled)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of the last layer; other layers follow by their scales."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * group[_SCALE])
        else:
            group["lr"] = rate * group[_SCALE]


def layer_scales(model: nn.Module, decay: float) -> Sequence[tuple[nn.Parameter, float]]:
    """Return every parameter with the scale of its learning rate, from `decay` for the first layer to 1 for the last.

    Scales are geometric in the index of the layer, in the order of definition, which is that of computation in
    networks of torchvision and timm. Source: layer-wise decay as in ELECTRA (Clark et al., ICLR 2020) and BEiT (Bao et
    al., ICLR 2022), here by the ratio of first and last layer, so that it does not depend on the depth.
    """
    named = list(model.named_parameters())
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in named))
    position = {layer: index / max(1, len(layers) - 1) for index, layer in enumerate(layers)}
    return [(parameter, decay ** (1 - position[name.rpartition(".")[0]])) for name, parameter in named]


def _rate(compute: ComputeDevice) -> Tensor | float:
    return torch.zeros((), device=compute.device) if compute.compiled else 0.0

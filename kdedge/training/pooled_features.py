"""Pooled features: the input of a model's classifier, or the output of an encoder without one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kdedge_export.saliency import find_cosine_layer
from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import UsageError

__all__ = ["POOLED", "PooledEncoder", "watch_pooled"]

POOLED = "pooled"
"""Name of the pooled features among the compared layers."""


def watch_pooled(
    model: nn.Module, example: Tensor, catch: Callable[[Tensor], None], is_headless: bool
) -> RemovableHandle:
    """Call a function with the pooled features, float `[N, D, 1, 1]`, of every forward pass.

    Args:
        model: classifier or encoder.
        example: one input.
        catch: receives the features; those of a token sequence or of positions are averaged. For an embedding network
            they are the embeddings.
        is_headless: True for an encoder, whose output is the features.

    Raises:
        UsageError: the classifier is not a linear layer or a convolution.
    """
    if (similarity := find_cosine_layer(model)) is not None:
        return similarity.register_forward_pre_hook(lambda _module, args: catch(_pooled(args[0])))
    if is_headless:
        return model.register_forward_hook(lambda _module, _args, output: catch(_pooled(output)))
    return _classifier(model, example).register_forward_pre_hook(lambda _module, args: catch(_pooled(args[0])))


class PooledEncoder(nn.Module):
    """Network that returns its pooled features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @classmethod
    def of(cls, model: nn.Module, example: Tensor, *, is_headless: bool) -> "PooledEncoder":
        """Remove the classifier of a model, in place.

        Args:
            model: classifier or encoder.
            example: one input.
            is_headless: True for an encoder.

        Raises:
            UsageError: the classifier is not a linear layer or a convolution.
        """
        if not is_headless:
            last = _classifier(model, example)
            (path,) = (path for path, layer in model.named_modules() if layer is last)
            model.set_submodule(path, nn.Identity())
        return cls(model)

    def forward(self, x: Tensor) -> Tensor:
        """Compute pooled features, float `[N, D]`."""
        return _pooled(self.network(x)).flatten(1)


def _classifier(model: nn.Module, example: Tensor) -> nn.Module:
    """Return the last executed layer with as many outputs as the model has logits."""
    executed: list[nn.Module] = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(lambda module, _args, _output: executed.append(module)) for layer in layers]
    try:
        with evaluating(model), torch.no_grad():
            classes = model(example).shape[1]
    finally:
        for handle in handles:
            handle.remove()
    for layer in reversed(executed):
        if classes in (getattr(layer, "out_features", None), getattr(layer, "out_channels", None)):
            return layer
    raise UsageError(
        f"{type(model).__name__} has no linear layer or convolution as its classifier, so its pooled features are "
        "unknown. Choose another network, or remove the term that compares them."
    )


def _pooled(value: Tensor) -> Tensor:
    """Average over tokens `[N, T, D]` or positions `[N, D, h, w]`, and return `[N, D, 1, 1]`."""
    mean = value.mean(dim=1) if value.ndim == 3 else value.flatten(2).mean(dim=2) if value.ndim == 4 else value
    return mean[:, :, None, None]

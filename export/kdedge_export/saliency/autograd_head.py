"""Autograd head: the layers after the target layer are differentiated automatically.

The target layer is the last one whose activations have spatial positions and affect the logits. In a convolutional
network it gives the last features. In a transformer with a class token it gives the input of the last attention, since
after it the image tokens cannot affect the logits (Gildenblat et al., pytorch-grad-cam, recommend its norm as well).
"""

import difflib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency.tracing import Trace, evaluating, trace
from kdedge_export.spatial_layout import SpatialLayout, grids_below, layout_of
from kdedge_runtime.errors import UsageError

__all__ = ["AutogradHead", "find_autograd_head", "feature_grids", "autograd_head_at", "randomize_zero_parameters"]

_WEIGHTED = {"convolution": "conv", "addmm": "linear", "mm": "linear", "bmm": "matmul"}
_NAMED = _WEIGHTED | {
    "mean": "mean",
    "avg_pool2d": "pool",
    "_adaptive_avg_pool2d": "pool",
    "max_pool2d_with_indices": "maxpool",
    "native_layer_norm": "layernorm",
    "native_batch_norm": "batchnorm",
    "native_group_norm": "groupnorm",
    "relu": "relu",
    "gelu": "gelu",
    "silu": "silu",
    "tanh": "tanh",
    "hardswish": "hardswish",
    "sigmoid": "sigmoid",
    "_softmax": "softmax",
    "_scaled_dot_product_flash_attention_for_cpu": "attention",
    "_native_multi_head_attention": "attention",
}
_NAMED_STEPS = 6


@dataclass(frozen=True)
class AutogradHead:
    """Target layer from whose output the model is differentiated."""

    target_layer: str
    layout: SpatialLayout
    name: str
    """Short description of the layers after the target layer, such as `linear+relu+linear+relu+linear`."""


@dataclass(frozen=True)
class _Candidate:
    path: str
    module: nn.Module
    output: Tensor
    gradient: Tensor | None


def find_autograd_head(model: nn.Module, example: Tensor) -> AutogradHead:
    """Find the last layer with spatial positions that affects the logits.

    Args:
        model: a classifier, float `[N, 3, H, W]` to logits `[N, K]`.
        example: one input at the model's input size.

    Raises:
        HeadNotSupported: no layer has spatial activations that affect the logits.
    """
    record = trace(model, example)
    grids = feature_grids(record)
    top, candidates = _candidates(model, example)
    for candidate in candidates:
        layout = layout_of(tuple(candidate.output.shape), grids)
        if layout is None or candidate.gradient is None or isinstance(candidate.module, _PASSED_OVER):
            continue
        gradient = layout.channels_first(candidate.gradient)[0]
        if not gradient.any() or _is_scores(gradient, top):
            continue
        return AutogradHead(candidate.path, layout, _name(record, candidate.path))
    raise HeadNotSupported(
        f"{type(model).__name__} cannot be explained: none of its layers has spatial activations that the logits "
        "depend on. Name a layer with --target-layer, or export without a map: --method none."
    )


def autograd_head_at(model: nn.Module, example: Tensor, path: str) -> AutogradHead:
    """Return the tail after a layer chosen by the user.

    Args:
        model: the classifier, in evaluation mode.
        example: one input at the model's input size, float `[1, 3, H, W]`.
        path: module path of the layer.

    Raises:
        UsageError: there is no such layer.
        HeadNotSupported: its output has no spatial positions, or the logits do not depend on them.
    """
    modules = [name for name, _ in model.named_modules() if name]
    if path not in modules:
        near = difflib.get_close_matches(path, modules, n=3, cutoff=0.4) or modules[-3:]
        raise UsageError(
            f"{type(model).__name__} has no layer {path!r}. Expected a module path for --target-layer, such as "
            f"{', '.join(near)}."
        )
    record = trace(model, example)
    _, candidates = _candidates(model, example, every_path=True)
    found = next((candidate for candidate in candidates if candidate.path == path), None)
    layout = None if found is None else layout_of(tuple(found.output.shape), feature_grids(record))
    if found is None:
        why = "does not run exactly once, or does not return a tensor"
    elif layout is None:
        why = f"returns a tensor {list(found.output.shape)}, which has no spatial positions"
    elif found.gradient is None or not layout.channels_first(found.gradient).any():
        why = "returns activations that the logits do not depend on"
    else:
        return AutogradHead(path, layout, _name(record, path))
    raise HeadNotSupported(
        f"{type(model).__name__} cannot be explained at {path}: the layer {why}. Name another, or remove "
        "--target-layer."
    )


_PASSED_OVER = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Linear)
"""Layers that are never the target: averages have at most the resolution of their input, and projections are
internal to attention."""


def _is_scores(gradient: Tensor, top: int) -> bool:
    """Return True if channels are classes: the activations are then scores, explained by their own inputs."""
    return len(gradient) > top and not torch.cat([gradient[:top], gradient[top + 1 :]]).any()


def _candidates(model: nn.Module, example: Tensor, *, every_path: bool = False) -> tuple[int, list[_Candidate]]:
    """Return the top-1 class and the outputs of modules that ran once with their gradients, last first.

    If several modules returned the same tensor, the outermost counts, and of several the last, unless `every_path` is
    set.
    """
    noted: list[tuple[str, nn.Module, Tensor]] = []
    runs: Counter[str] = Counter()

    def note(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _args: object, output: object) -> None:
            runs[path] += 1
            if isinstance(output, Tensor) and output.requires_grad:
                noted.append((path, module, output))

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules() if path]
    try:
        with evaluating(model), randomize_zero_parameters(model), torch.enable_grad():
            logits = model(example.detach().requires_grad_())
            top = int(logits[0].argmax())
            outputs = [output for _, _, output in noted]
            gradients = torch.autograd.grad(logits[0, top], outputs, allow_unused=True) if outputs else ()
    finally:
        for handle in handles:
            handle.remove()
    found = [
        _Candidate(path, module, output, gradient)
        for (path, module, output), gradient in zip(noted, gradients, strict=True)
        if runs[path] == 1
    ]
    if every_path:
        return top, found
    owners: dict[int, _Candidate] = {}
    for candidate in found:
        known = owners.get(id(candidate.output))
        if known is None or candidate.path.count(".") <= known.path.count("."):
            owners[id(candidate.output)] = candidate
    order = {id(candidate.output): index for index, candidate in enumerate(found)}
    return top, sorted(owners.values(), key=lambda candidate: order[id(candidate.output)], reverse=True)


@contextmanager
def randomize_zero_parameters(model: nn.Module) -> Iterator[None]:
    """Temporarily replace all-zero parameters (e.g. untrained heads) with noise so that gradients flow."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        zero = [parameter for parameter in model.parameters() if not parameter.any()]
        for parameter in zero:
            noise = torch.randn(parameter.shape, generator=generator) * 0.05
            parameter.copy_(noise)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter in zero:
                parameter.zero_()


def feature_grids(record: Trace) -> frozenset[tuple[int, int]]:
    """Return the resolutions at which a traced network works."""
    attribution_inputs = [
        (int(operation.output.shape[2]), int(operation.output.shape[3]))
        for operation in record.operations
        if operation.name in {"convolution", "max_pool2d_with_indices"} and operation.output.ndim == 4
    ]
    return grids_below(attribution_inputs)


def _name(record: Trace, path: str) -> str:
    targets = {tensor for tensor, owner in record.outputs.items() if owner == path}
    last = max((index for index, step in enumerate(record.operations) if id(step.output) in targets), default=-1)
    following = [step.name.rstrip("_") for step in record.operations[last + 1 :]]
    names = [_NAMED[name] for name in following if name in _NAMED]
    shown = names if len(names) <= _NAMED_STEPS else [*names[:2], "…", *names[-3:]]
    return "+".join(shown) or "tail"

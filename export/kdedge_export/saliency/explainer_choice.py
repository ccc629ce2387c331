"""Explanation of a classifier by method name, with the target layer found or given."""

from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency.attention_explainer import AttentionExplainer
from kdedge_export.saliency.autograd_head import AutogradHead, autograd_head_at, find_autograd_head
from kdedge_export.saliency.cam_explainer import CAMExplainer
from kdedge_export.saliency.closed_form_head import ClosedFormHead
from kdedge_export.saliency.dense_explainer import DenseExplainer
from kdedge_export.saliency.explained_model import ExplainedModel
from kdedge_export.saliency.gradient_explainer import GradientExplainer
from kdedge_export.saliency.head_finder import find_dense_network, find_head
from kdedge_export.saliency.methods import (
    DEEPLIFT,
    GRADIENT_ATTENTION,
    HIRESCAM,
    METHODS,
    AttentionMethod,
    CAMMethod,
    PropagationMethod,
)
from kdedge_runtime.errors import UsageError

__all__ = ["DEFAULT_METHODS", "make_explained"]

DEFAULT_METHODS = (HIRESCAM.name, GRADIENT_ATTENTION.name, DEEPLIFT.name)
"""Most faithful class-specific method per kind of head, as measured (.github/docs/benchmarks/saliency-maps.md).

With a class token, activations at single positions carry little evidence, since earlier blocks moved it to other
tokens.
"""


def make_explained(
    model: nn.Module, example: Tensor, method: str | None = None, target_layer: str | None = None
) -> ExplainedModel:
    """Wrap a classifier so that it also returns saliency maps.

    Args:
        model: a classifier, float `[N, 3, H, W]` to logits `[N, K]`.
        example: one input at the model's input size, float `[1, 3, H, W]`.
        method: one of `METHODS`; None uses the default for the head, see `DEFAULT_METHODS`.
        target_layer: module path of the layer whose activations the map uses; None takes the attribute `target_layer`
            of a model whose last activations are too coarse, and finds the layer of other models.

    Raises:
        HeadNotSupported: the model does not support this method; the message gives the reason.
        UsageError: there is no such layer or method, or the method uses no target layer.
    """
    if method is None or isinstance(METHODS.get(method), CAMMethod):
        target_layer = target_layer or getattr(model, "target_layer", None)
    if method is None:
        return _by_default(model, example, target_layer)
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}. Expected one of {', '.join(METHODS)}.")
    chosen = METHODS[method]
    if isinstance(chosen, CAMMethod):
        return CAMExplainer(model, _head(model, example, target_layer), chosen)
    if target_layer is not None:
        raise UsageError(f"--method {method} uses no target layer. Remove --target-layer {target_layer}.")
    if isinstance(chosen, PropagationMethod):
        return DenseExplainer(model, find_dense_network(model, example), chosen)
    if isinstance(chosen, AttentionMethod):
        return AttentionExplainer(model, chosen, example)
    return GradientExplainer(model, chosen, example)


def _by_default(model: nn.Module, example: Tensor, target_layer: str | None) -> ExplainedModel:
    # Pixels by themselves mean little, so that dense networks on images are explained on request only.
    if target_layer is None and example.shape[2] == 1:
        try:
            return DenseExplainer(model, find_dense_network(model, example), DEEPLIFT)
        except HeadNotSupported:  # the usual case: the network has more than dense layers
            pass
    head = _head(model, example, target_layer)
    if target_layer is None and isinstance(head, AutogradHead) and head.layout.prefix:
        try:
            by_attention = AttentionExplainer(model, GRADIENT_ATTENTION, example)
        except HeadNotSupported:  # windowed attention, or attention to fewer tokens than queries
            pass
        else:
            if by_attention.classifies_prefix:
                return by_attention
    return CAMExplainer(model, head, HIRESCAM)


def _head(model: nn.Module, example: Tensor, target_layer: str | None) -> ClosedFormHead | AutogradHead:
    """Return the closed-form head (at the named layer) if there is one, else the tail to be differentiated."""
    try:
        head: ClosedFormHead | None = find_head(model, example)
    except HeadNotSupported:
        head = None
    if head is not None and target_layer in (None, head.target_layer):
        return head
    return (
        find_autograd_head(model, example) if target_layer is None else autograd_head_at(model, example, target_layer)
    )

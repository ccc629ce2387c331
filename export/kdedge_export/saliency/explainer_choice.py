"""From a classifier to its explanation: the method by name, the target layer found or named."""

from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency.attention_explainer import ByAttention
from kdedge_export.saliency.autograd_head import Tail, find_tail, named_tail
from kdedge_export.saliency.cam_explainer import ByCells
from kdedge_export.saliency.closed_form_head import Head
from kdedge_export.saliency.explained_model import ExplainedModel
from kdedge_export.saliency.gradient_explainer import ByPixels
from kdedge_export.saliency.head_finder import find_head
from kdedge_export.saliency.methods import GRADIENT_ATTENTION, HIRESCAM, METHODS, AttentionMethod, CellMethod
from kdedge_runtime.errors import UsageError

__all__ = ["DEFAULT_METHODS", "explain"]

DEFAULT_METHODS = (HIRESCAM.name, GRADIENT_ATTENTION.name)
"""The most faithful class-specific method of each kind of head, as measured (export/README.md, Choosing a method).

Behind a class token, activations of single cells say little: its evidence was moved to other tokens blocks before.
"""


def explain(
    model: nn.Module, example: Tensor, method: str | None = None, target_layer: str | None = None
) -> ExplainedModel:
    """Wrap a classifier so that it also gives saliency maps.

    Args:
        model: a classifier, float `[N, 3, H, W]` to logits `[N, K]`.
        example: one input at the size the model will be used with, float `[1, 3, H, W]`.
        method: one of `METHODS`; None takes the default of the head, see `DEFAULT_METHODS`.
        target_layer: module path of the layer whose activations the map shows; None finds it.

    Raises:
        HeadNotSupported: the model does not allow this method, and why.
        UsageError: there is no such layer or method, or the method looks at none.
    """
    if method is None:
        return _by_default(model, example, target_layer)
    if method not in METHODS:
        raise UsageError(f"There is no method {method!r}. Expected one of {', '.join(METHODS)}.")
    chosen = METHODS[method]
    if isinstance(chosen, CellMethod):
        return ByCells(model, _head(model, example, target_layer), chosen)
    if target_layer is not None:
        raise UsageError(f"--method {method} looks at no single layer. Leave --target-layer {target_layer} out.")
    if isinstance(chosen, AttentionMethod):
        return ByAttention(model, chosen, example)
    return ByPixels(model, chosen, example)


def _by_default(model: nn.Module, example: Tensor, target_layer: str | None) -> ExplainedModel:
    head = _head(model, example, target_layer)
    if target_layer is None and isinstance(head, Tail) and head.layout.prefix:
        try:
            by_attention = ByAttention(model, GRADIENT_ATTENTION, example)
        except HeadNotSupported:  # attention within windows, or to fewer tokens than attend
            pass
        else:
            if by_attention.classifies_prefix:
                return by_attention
    return ByCells(model, head, HIRESCAM)


def _head(model: nn.Module, example: Tensor, target_layer: str | None) -> Head | Tail:
    """A closed form if there is one (at the named layer), else what follows the target layer, to be differentiated."""
    try:
        head: Head | None = find_head(model, example)
    except HeadNotSupported:
        head = None
    if head is not None and target_layer in (None, head.target_layer):
        return head
    return find_tail(model, example) if target_layer is None else named_tail(model, example, target_layer)

"""CAM explainer: saliency maps from the activations of one layer."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency.autograd_head import AutogradHead
from kdedge_export.saliency.closed_form_head import ClosedFormHead, DenseHeadLayer
from kdedge_export.saliency.cosine_layer import explained_similarities
from kdedge_export.saliency.explained_model import ExplainedModel, ForwardOutput, gradients
from kdedge_export.saliency.gated_activations import differentiable_gates
from kdedge_export.saliency.methods import CAMMethod
from kdedge_export.saliency.unfused_attention import unfuse_attention

__all__ = ["CAMExplainer"]


class _Slot:
    """Holder for the hooked activations; a plain object, so that `torch.export` does not copy it."""

    activations: Tensor | None = None
    tail: ExitStack | None = None
    """Contexts active from the target layer to the end of a forward pass; None outside of one."""

    def leave(self) -> None:
        self.tail = None

    def take(self) -> Tensor:
        value, self.activations = self.activations, None
        assert value is not None, "the target layer did not run"
        return value


class CAMExplainer(ExplainedModel):
    """Explain a classifier by its target layer's activations, weighted by the gradients of the logits.

    For a closed-form head the gradients are computed by forward operations. For any other head, autograd differentiates
    only the layers after the target layer.
    """

    def __init__(self, model: nn.Module, head: ClosedFormHead | AutogradHead, method: CAMMethod) -> None:
        """Register a hook on the target layer.

        Args:
            model: the classifier.
            head: the layers after the target layer, from `find_head` or `find_autograd_head`.
            method: function from activations and gradients to a map.

        Raises:
            HeadNotSupported: the method is not defined for this head.
        """
        super().__init__(model)
        self.head, self._compute, self.method = head, method.compute, method.name
        self.target_layer, self.head_description = head.target_layer, head.name
        self.is_closed_form = isinstance(head, ClosedFormHead)
        if method.one_dense_layer and not (
            isinstance(head, ClosedFormHead) and [*map(type, head.layers)] == [DenseHeadLayer]
        ):
            raise HeadNotSupported(
                f"{type(model).__name__} has no class activation map ({method.name}): it is defined only for global "
                f"average pooling and one dense layer, and this model's head is {head.name}. Choose another --method, "
                "such as gradcam, which gives the same map where both are defined."
            )
        self._slot = _Slot()
        if isinstance(head, AutogradHead):
            self._explained = explained_similarities(model)
        self._hook: RemovableHandle | None = None
        self.attach()

    def attach(self) -> None:
        """Register the hook that reads the target layer; see `ExplainedModel`."""
        if self._hook is not None:
            return
        slot, layer = self._slot, self.model.get_submodule(self.head.target_layer)
        if isinstance(self.head, AutogradHead):
            self._hook = layer.register_forward_hook(lambda _module, _args, output: _cut(slot, output))
        elif self.head.takes_input:
            self._hook = layer.register_forward_pre_hook(lambda _module, args: _put(slot, args[0]))
        else:
            self._hook = layer.register_forward_hook(lambda _module, _args, output: _put(slot, output))

    def detach(self) -> None:
        """Remove the hook and the activations; see `ExplainedModel`."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._slot.activations = None

    def forward(self, x: Tensor) -> ForwardOutput:
        """Classify an input; see `ExplainedModel`. The attribution inputs are the target layer's activations."""
        if isinstance(self.head, ClosedFormHead):
            logits = self.model(x)
            return ForwardOutput(logits, (self._slot.take(),), logits)
        with ExitStack() as self._slot.tail:
            self._slot.tail.callback(self._slot.leave)
            logits = self.model(x)
            target_logits = self._explained(logits)
        return ForwardOutput(
            logits if torch.is_grad_enabled() else logits.detach(), (self._slot.take(),), target_logits
        )

    def class_maps(self, output: ForwardOutput, classes: Tensor) -> Tensor:
        """Compute class maps; see `ExplainedModel`. Dropout in a closed-form head is skipped."""
        (activations,) = output.attribution_inputs
        if isinstance(self.head, ClosedFormHead):
            activations = _full(activations)
            height, width = activations.shape[2:]
            # Computed as in the model's own pooling layer, so that the graph computes it only once.
            pooled = activations.mean(dim=(-2, -1), keepdim=True).flatten(1)
            weights = self.head.channel_weights(self.model, pooled, classes)
            return self._compute(activations, (weights / (height * width))[..., None, None])
        columns = gradients(output.target_logits, classes, output.attribution_inputs)
        layout = self.head.layout
        slopes = torch.stack([_full(layout.channels_first(gradient)) for (gradient,) in columns], dim=1)
        if not torch.is_grad_enabled():
            activations = activations.detach()
        return self._compute(_full(layout.channels_first(activations)), slopes)


def _full(tensor: Tensor) -> Tensor:
    """Convert half precision to float32; float64 is kept."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _put(slot: _Slot, activations: Tensor) -> None:
    slot.activations = activations


def _cut(slot: _Slot, activations: Tensor) -> Tensor | None:
    """Start differentiating at the activations, even if nothing before them requires gradients."""
    if slot.tail is None:
        return None
    slot.tail.enter_context(unfuse_attention())  # fused kernels cannot be differentiated twice
    if torch.is_grad_enabled() and activations.requires_grad:
        slot.tail.enter_context(differentiable_gates())
    else:
        slot.tail.enter_context(torch.enable_grad())
        activations = activations.detach().requires_grad_()
    slot.activations = activations
    return activations.clone()  # the following layers may work in place

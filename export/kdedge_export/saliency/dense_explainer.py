"""Dense explainer: exact contributions of the inputs of a network of dense layers, in the forward pass."""

from torch import Tensor, nn
from torch.nn import functional as F

from kdedge_export.saliency.closed_form_head import (
    ACTIVATIONS,
    ActivationLayer,
    DenseHeadLayer,
    HeadLayer,
    apply_layer,
    weight_matrix,
)
from kdedge_export.saliency.explained_model import ExplainedModel, ForwardOutput
from kdedge_export.saliency.methods import PropagationMethod

__all__ = ["DenseExplainer"]


class DenseExplainer(ExplainedModel):
    """Explain a network of dense layers and activations by multipliers from its logits to its input.

    The reference is the input zero, which the front end of tables makes the average training row.
    """

    target_layer = None
    is_closed_form = True

    def __init__(self, model: nn.Module, layers: tuple[HeadLayer, ...], method: PropagationMethod) -> None:
        """Wrap a network.

        Args:
            model: network, from features `[N, C, h, w]` to logits `[N, K]`.
            layers: all layers of the network, from `find_dense_network`; the last one is dense.
            method: rule for the multipliers of activations, and function from multipliers to maps.
        """
        super().__init__(model)
        self.layers, self.method = layers, method.name
        self._multiplier, self._combine = method.multiplier, method.combine
        self.head_description = "+".join("Linear" if isinstance(layer, DenseHeadLayer) else "act" for layer in layers)

    @property
    def last_weight(self) -> str:
        """Name of the last weight with several inputs; a regression ends in a scale for its unit."""
        names = [layer.weight for layer in self.layers if isinstance(layer, DenseHeadLayer)]
        return next((name for name in reversed(names) if self.model.get_parameter(name).shape[1] > 1), names[-1])

    def forward(self, x: Tensor) -> ForwardOutput:
        """Classify features; see `ExplainedModel`.

        The attribution inputs are the features and the multipliers of each activation, `[N, H]`.
        """
        # A product with the input, since an exporter would fold constants, which then ignore quantized weights.
        value, reference = x.flatten(1), (x[:1] * 0.0).flatten(1)
        multipliers = []
        for layer in self.layers:
            after, reference_after = (apply_layer(layer, self.model, each) for each in (value, reference))
            if isinstance(layer, ActivationLayer):
                slope = ACTIVATIONS[layer.name][1](value)
                multipliers.append(self._multiplier(value, reference, after, reference_after, slope))
            value, reference = after, reference_after
        logits = self.model(x) if self.training else value  # with dropout
        return ForwardOutput(logits, (x, *multipliers), logits)

    def class_maps(self, output: ForwardOutput, classes: Tensor) -> Tensor:
        """Compute the contributions to chosen logits; see `ExplainedModel`."""
        features, *multipliers = output.attribution_inputs
        found: Tensor | None = None
        for layer in reversed(self.layers):
            if isinstance(layer, DenseHeadLayer):
                weight = weight_matrix(self.model, layer.weight).to(features.dtype)
                found = F.embedding(classes, weight) if found is None else found @ weight
            else:
                assert found is not None, "the last layer is dense"
                found = found * multipliers.pop()[:, None]
        assert found is not None
        return self._combine(features, found.reshape(*classes.shape, *features.shape[1:]))

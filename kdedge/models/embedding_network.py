"""Embedding networks: an encoder, and the cosine similarity of its output to one prototype per class."""

from dataclasses import replace

from torch import Tensor, nn

from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.model_spec import ModelSpec
from kdedge_export.saliency import CosineLayer
from kdedge_runtime.modalities import InputSpec

__all__ = ["EmbeddingNetwork", "backbone", "build_network"]


class EmbeddingNetwork(nn.Module):
    """Encoder with prototypes. Its logits are the cosine similarities, so that losses and maps work as for classes."""

    def __init__(self, encoder: nn.Module, classes: int, size: int) -> None:
        """Create the network with random prototypes.

        Args:
            encoder: network from features to embeddings `[N, D]` of any length.
            classes: number of prototypes, K.
            size: number of values of an embedding, D.
        """
        super().__init__()
        self.encoder = encoder
        self.similarity = CosineLayer(classes, size)

    def forward(self, x: Tensor) -> Tensor:
        """Compute similarities `[N, K]` in [-1, 1]."""
        similarities: Tensor = self.similarity(self.encoder(x))
        return similarities


def build_network(spec: ModelSpec, spec_input: InputSpec) -> nn.Module:
    """Build a network with random weights: a classifier, or for a specification with an embedding its network."""
    modality = TRAINING_MODALITIES[spec_input.kind]
    if spec.embedding is None:
        return modality.build_model(spec, spec_input)
    encoder = modality.build_model(replace(spec, classes=spec.embedding, embedding=None), spec_input)
    return EmbeddingNetwork(encoder, spec.classes, spec.embedding)


def backbone(model: nn.Module) -> nn.Module:
    """Return the network whose layers have the names of the library: the encoder, or the classifier itself."""
    return model.encoder if isinstance(model, EmbeddingNetwork) else model

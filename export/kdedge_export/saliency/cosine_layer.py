"""Cosine layer: similarity of an embedding to one prototype per class, in place of a last dense layer.

With an embedding `e` of pooled features, and a prototype `w`, the similarity `s = (e / |e|) · (w / |w|)` has the
gradient `ds/de = (w / |w| - s · e / |e|) / |e|`. It takes the place of a row of a dense layer's matrix in the closed
form of the map, so that the map of a similarity needs no differentiation either.

Sources: prototypes as class means of Snell et al., Prototypical Networks, NeurIPS 2017; cosine classifier of Gidaris
and Komodakis, Dynamic Few-Shot Visual Learning without Forgetting, CVPR 2018.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CosineLayer", "find_cosine_layer", "normalized"]

_SHORTEST = 1e-6
"""Minimum length of an embedding; shorter ones, such as zeros, have similarities near zero."""


class CosineLayer(nn.Module):
    """Cosine similarities of embeddings to prototypes."""

    prototypes: Tensor

    def __init__(self, classes: int, size: int) -> None:
        """Create the layer with random prototypes.

        Args:
            classes: number of prototypes, K.
            size: number of values of an embedding, D.
        """
        super().__init__()
        self.register_buffer("prototypes", F.normalize(torch.randn(classes, size), dim=1))

    def forward(self, embedding: Tensor) -> Tensor:
        """Compute similarities float `[N, K]` of embeddings `[N, D]` of any length."""
        return normalized(embedding) @ self._rows(embedding.dtype).T

    def gradients(self, embedding: Tensor, classes: Tensor) -> Tensor:
        """Compute the gradients of chosen similarities with respect to the embedding.

        Args:
            embedding: float `[N, D]`.
            classes: int64 `[N, k]`.

        Returns:
            float `[N, k, D]`.
        """
        length = _lengths(embedding)
        unit = embedding / length
        # A Gather in the graph, whose name leaves `embedding` to the output.
        rows = self._rows(embedding.dtype).index_select(0, classes.flatten()).reshape(*classes.shape, -1)
        similarities = (rows * unit[:, None]).sum(dim=2, keepdim=True)
        gradients: Tensor = (rows - similarities * unit[:, None]) / length[:, None]
        return gradients

    def _rows(self, dtype: torch.dtype) -> Tensor:
        return normalized(self.prototypes).to(dtype)


def normalized(vectors: Tensor) -> Tensor:
    """Return vectors `[N, D]` divided by their length."""
    return vectors / _lengths(vectors)


def _lengths(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=1, keepdim=True).sqrt().clamp_min(_SHORTEST)


def find_cosine_layer(model: nn.Module) -> CosineLayer | None:
    """Return the cosine layer of a model; None if it has none."""
    return next((layer for layer in model.modules() if isinstance(layer, CosineLayer)), None)

"""Cosine layer: similarity of an embedding to one prototype per class, in place of a last dense layer.

The similarity of an embedding `e` to a prototype `w` is `s = (e / |e|) · (w / |w|)`. Its map decomposes it over
positions: the length `|e|` is held constant, so that `w / (|w| |e|)` takes the place of a row of a dense layer's
matrix. For an embedding that is linear in the features, without a bias, the map adds up to the similarity. The gradient
of the cosine itself would vanish where the similarity is largest.

Sources: the decomposition of Stylianou et al., Visualizing Deep Similarity Networks, WACV 2019, and of Zhu et al.,
Visual Explanation for Deep Metric Learning, TIP 2021. Prototypes as class means of Snell et al., Prototypical
Networks, NeurIPS 2017; cosine classifier of Gidaris and Komodakis, Dynamic Few-Shot Visual Learning without
Forgetting, CVPR 2018.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CosineLayer", "explained_similarities", "find_cosine_layer", "normalized"]

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

    def at_constant_length(self, embedding: Tensor) -> Tensor:
        """Compute the same similarities, with gradients that hold the length of the embeddings constant."""
        return embedding / _lengths(embedding).detach() @ self._rows(embedding.dtype).T

    def gradients(self, embedding: Tensor, classes: Tensor) -> Tensor:
        """Compute the gradients of chosen similarities with respect to the embedding, whose length is held constant.

        Args:
            embedding: float `[N, D]`.
            classes: int64 `[N, k]`.

        Returns:
            float `[N, k, D]`.
        """
        # A Gather in the graph, whose name leaves `embedding` to the output.
        rows = self._rows(embedding.dtype).index_select(0, classes.flatten()).reshape(*classes.shape, -1)
        gradients: Tensor = rows / _lengths(embedding)[:, None]
        return gradients

    def _rows(self, dtype: torch.dtype) -> Tensor:
        return normalized(self.prototypes).to(dtype)


def normalized(vectors: Tensor) -> Tensor:
    """Return vectors `[N, D]` divided by their length."""
    return vectors / _lengths(vectors)


def _lengths(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=1, keepdim=True).sqrt().clamp_min(_SHORTEST)


def explained_similarities(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function from the logits of a model's last forward pass to those that its maps differentiate.

    For a model with a cosine layer it holds the length of the embeddings constant; for others it returns the logits.
    """
    layer = find_cosine_layer(model)
    if layer is None:
        return lambda logits: logits
    kept: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _layer, args: _replace(kept, args[0]))
    return lambda _logits: layer.at_constant_length(kept.pop())


def _replace(kept: list[Tensor], value: Tensor) -> None:
    kept[:] = [value]


def find_cosine_layer(model: nn.Module) -> CosineLayer | None:
    """Return the cosine layer of a model; None if it has none."""
    return next((layer for layer in model.modules() if isinstance(layer, CosineLayer)), None)

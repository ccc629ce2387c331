"""Normalization of raw pixels to the model's input."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge_runtime.modalities.image import ImageInput

__all__ = ["Normalize"]


class Normalize(nn.Module):
    """Convert uint8 RGB `[N, H, W, 3]` to normalized float32 `[N, 3, H, W]`.

    Images of another size are resampled, so that a teacher can use the student's images.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: ImageInput) -> None:
        super().__init__()
        self.size = (spec.height, spec.width)
        # Scaled to pixel values, so that normalization is one subtraction and one multiplication.
        self.register_buffer("mean", torch.tensor(spec.mean).mul(255).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(spec.std).mul(255).reciprocal().view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Cast, move the channels to the front, subtract the mean and divide by the standard deviation."""
        x = (image.permute(0, 3, 1, 2).float() - self.mean) * self.scale
        if tuple(x.shape[2:]) != self.size:  # not in an exported graph, whose input has the model's size
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        return x

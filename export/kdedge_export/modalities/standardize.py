"""Standardization of raw windows to the model's input."""

import torch
from torch import Tensor, nn

from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["Standardize"]


class Standardize(nn.Module):
    """Convert float32 `[N, T, C]` to standardized float32 `[N, 1, C, T]`: channels are rows, steps are columns."""

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: TimeseriesInput) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean), persistent=False)
        self.register_buffer("scale", torch.tensor(spec.std).reciprocal(), persistent=False)

    def forward(self, series: Tensor) -> Tensor:
        """Subtract the mean of each channel, divide by its standard deviation, and move the channels to the front."""
        return ((series - self.mean) * self.scale).transpose(1, 2).unsqueeze(1)

"""Conversion of samples to the input of an ONNX graph."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge_export.modalities.normalization import Normalize
from kdedge_export.onnx_graph.graph_index import Array
from kdedge_export.onnx_graph.graph_input import GraphInput
from kdedge_runtime.modalities.image import ImageInput

__all__ = ["GraphFeed", "feed_images", "feed_samples"]


@dataclass(frozen=True)
class GraphFeed:
    """Input of a graph, and how samples are converted to it."""

    name: str
    """Name of the graph input."""
    batch: int | None
    """Batch size of the graph; None if it is dynamic."""
    convert: Callable[[Tensor], Array]
    """Function of samples `[N, *shape]` on any device to the values of the graph input."""


def feed_samples(name: str, dtype: np.dtype[Any], batch: int | None = None) -> GraphFeed:
    """Return the feed of a graph that takes the samples themselves.

    Args:
        name: name of the graph input.
        dtype: data type of the graph input.
        batch: batch size of the graph; None if it is dynamic.
    """

    def convert(samples: Tensor) -> Array:
        return np.ascontiguousarray(samples.cpu().numpy().astype(dtype, copy=False))

    return GraphFeed(name, batch, convert)


def feed_images(port: GraphInput, spec: ImageInput) -> GraphFeed:
    """Return the feed of a graph that takes images, as raw pixels or normalized.

    Args:
        port: input of the graph with its size.
        spec: size and normalization; images of another size are resampled.
    """
    normalize = Normalize(spec)

    def convert(images: Tensor) -> Array:
        with torch.no_grad():
            if port.dtype != np.uint8:
                x = normalize.to(images.device)(images)
            else:
                x = images.permute(0, 3, 1, 2)
                if tuple(x.shape[2:]) != normalize.size:  # resample like `Normalize`, but in whole pixel values
                    x = F.interpolate(x.float(), normalize.size, mode="bilinear", antialias=True)
                    x = x.round().clamp(0, 255).to(torch.uint8)
            if port.layout == "NHWC":
                x = x.permute(0, 2, 3, 1)
        return np.ascontiguousarray(x.cpu().numpy().astype(port.dtype, copy=False))

    return GraphFeed(port.name, port.shape[0], convert)

"""Input of teachers for time series from other frameworks, `[N, T, C]`, `[N, C, T]` or `[N, T]`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from kdedge.models.graph_feed import GraphFeed, feed_samples
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.modalities.timeseries import TimeseriesInput
from kdedge_runtime.modalities.timeseries_names import unnamed_channels

__all__ = ["find_series_feed"]

_TYPES: Mapping[int, np.dtype[Any]] = {1: np.dtype(np.float32), 10: np.dtype(np.float16)}
"""Data types by `onnx.TensorProto.DataType`."""
_EXPECTED = "Expected one input of floats, [N, T, C], [N, C, T] or [N, T], with a fixed number of steps and channels."


def find_series_feed(view: GraphIndex, name: str) -> tuple[TimeseriesInput, GraphFeed]:
    """Describe the input of a graph, which takes the values of the sensor.

    A window has more steps than channels, which tells `[N, T, C]` from `[N, C, T]`. Mean and standard deviation have no
    effect on such a graph; they are 0 and 1.

    Args:
        view: the graph.
        name: name of the file in messages.

    Raises:
        ModelFileError: the graph takes something else, or as many steps as channels.
    """
    weights = {item.name for item in view.model.graph.initializer}
    ports = [port for port in view.model.graph.input if port.name not in weights]
    shapes = [[axis.dim_value or None for axis in port.type.tensor_type.shape.dim] for port in ports]
    dtypes = [_TYPES.get(port.type.tensor_type.elem_type) for port in ports]
    if len(ports) != 1 or dtypes[0] is None or len(shapes[0]) not in (2, 3) or None in shapes[0][1:]:
        taken = ", ".join(
            f"{port.name} {[size or '?' for size in shape]}" for port, shape in zip(ports, shapes, strict=True)
        )
        raise ModelFileError(
            f"{name} is not usable as a teacher of time series: it takes {taken or 'nothing'}. {_EXPECTED}"
        )
    batch, *sides = shapes[0]
    steps, channels = (sides[0] or 0, 1) if len(sides) == 1 else (max(filter(None, sides)), min(filter(None, sides)))
    if steps == channels:
        raise ModelFileError(
            f"{name} takes {steps} steps of {channels} channels, or the reverse: their order is not known. {_EXPECTED}"
        )
    spec = TimeseriesInput(unnamed_channels(channels), steps, (0.0,) * channels, (1.0,) * channels)
    plain = feed_samples(ports[0].name, dtypes[0], batch)
    if len(sides) == 2 and sides[0] == steps:
        return spec, plain

    def convert(samples: Tensor) -> Array:
        return plain.convert(samples[..., 0] if len(sides) == 1 else samples.transpose(1, 2))

    return spec, GraphFeed(plain.name, batch, convert)

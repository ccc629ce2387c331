"""Selection of the stages shown in a layer attribution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdedge_export.onnx_graph.graph_index import Array, GraphIndex
from kdedge_export.onnx_graph.graph_input import GraphInput
from kdedge_export.onnx_graph.spatial.coordinates import track_coordinates
from kdedge_export.onnx_graph.spatial.spatial_grid import SpatialGrid, grid_of
from kdedge_export.onnx_graph.spatial.target_candidates import find_candidates, has_weights

__all__ = ["SpatialLayer", "choose_layers", "spatial_layers"]

MAX_STAGES = 5
FINEST_POSITIONS = 60
"""Maximum resolution of the longer side for a stage, unless all stages are finer."""


@dataclass(frozen=True)
class SpatialLayer:
    """Tensor with spatial positions."""

    tensor: str
    grid: SpatialGrid
    reader: int | None = None
    """Number of the attention that reads it, from 1; None for a tensor on every path to the logits."""


def spatial_layers(
    view: GraphIndex, port: GraphInput, logits: str, path: list[int], values: Mapping[str, Array]
) -> tuple[SpatialLayer, ...]:
    """Return the layers between the first and the last weights, in order, except those of too fine a resolution.

    These are the tensors on every path to the logits, and the normalized inputs of attentions.

    Args:
        view: the graph.
        port: the image input.
        logits: the logits tensor.
        path: the nodes between both.
        values: values of the path's tensors for one image.
    """
    candidates = find_candidates(view, view.cuts(port.name, logits), path)
    wanted = {
        tensor
        for tensor in candidates.tensors
        if values[tensor].dtype.kind == "f" and view.nodes[view.place(tensor)].op_type != "Pad"
    }
    places = track_coordinates(view, values, port, path, wanted)
    grids = {tensor: grid for tensor in places if (grid := grid_of(places[tensor])) is not None}
    readers = candidates.readers(grids.get)
    found = {tensor: SpatialLayer(tensor, grid, readers.get(tensor)) for tensor, grid in grids.items()}
    finest = max(FINEST_POSITIONS, min((max(layer.grid.size) for layer in found.values()), default=0))
    found = {tensor: layer for tensor, layer in found.items() if max(layer.grid.size) <= finest}
    whole = {tensor for tensor in candidates.cuts if tensor in found and not _goes_on(view, tensor, found, path)}
    return tuple(
        layer
        for layer in sorted(found.values(), key=lambda layer: view.place(layer.tensor))
        if layer.tensor in whole or layer.reader is not None
    )


def _goes_on(view: GraphIndex, tensor: str, found: Mapping[str, SpatialLayer], path: list[int]) -> bool:
    """Return True if the only consumer of a tensor is an operator without weights that keeps its grid."""
    takers = set(view.consumers[tensor]).intersection(path)
    if len(takers) != 1:
        return False
    (taker,) = takers
    after = found.get(view.nodes[taker].output[0])
    return after is not None and after.grid.size == found[tensor].grid.size and not has_weights(view, taker)


def choose_layers(layers: Sequence[SpatialLayer]) -> tuple[SpatialLayer, ...]:
    """Select at most five stages, from coarse to fine, including the last layer.

    These are the last layers of each resolution. With a single resolution, as in a vision transformer, they are evenly
    spaced layers: the inputs of attentions, if there are any, and the last layer.
    """
    last = layers[-1]
    shown = [layer for layer in layers if min(layer.grid.size) >= min(last.grid.size)]
    by_size = {layer.grid.size: layer for layer in shown}  # the last of each
    if len(by_size) > 1:
        return tuple(sorted(by_size.values(), key=lambda layer: max(layer.grid.size))[:MAX_STAGES])
    if any(layer.reader is not None for layer in shown):
        shown = [layer for layer in shown if layer.reader is not None or layer is last]
    count = min(MAX_STAGES, len(shown))
    return tuple(shown[step * (len(shown) - 1) // max(count - 1, 1)] for step in reversed(range(count)))

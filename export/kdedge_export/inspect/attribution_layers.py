"""The tensors of a graph that are stages of a decision: they lie over the picture, and the answer goes through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdedge_export.onnx_graph.graph_index import Array, GraphView
from kdedge_export.onnx_graph.graph_input import Port
from kdedge_export.onnx_graph.spatial.coordinates import follow_places
from kdedge_export.onnx_graph.spatial.spatial_grid import Grid, grid_of
from kdedge_export.onnx_graph.spatial.target_candidates import find_candidates, has_weights

__all__ = ["Layer", "chosen", "layers_with_cells"]

MOST_STAGES = 5
FINEST_CELLS = 60
"""Along the longer side of the finest stage that is shown, where there are coarser ones."""


@dataclass(frozen=True)
class Layer:
    """A tensor whose values lie over the picture."""

    tensor: str
    grid: Grid
    reader: int | None = None
    """Which attention reads it, counted from 1; None of a tensor that all of the answer goes through."""


def layers_with_cells(
    view: GraphView, port: Port, logits: str, path: list[int], values: Mapping[str, Array]
) -> tuple[Layer, ...]:
    """All between the first weights and the last that are not too fine to look at, from the image on.

    They are what all of the answer goes through, and what attentions read, behind their norm.

    Args:
        view: the graph.
        port: the image.
        logits: the tensor of the answer.
        path: the nodes between both.
        values: what the tensors of the path held for one picture.
    """
    candidates = find_candidates(view, view.cuts(port.name, logits), path)
    wanted = {
        tensor
        for tensor in candidates.tensors
        if values[tensor].dtype.kind == "f" and view.nodes[view.place(tensor)].op_type != "Pad"
    }
    places = follow_places(view, values, port, path, wanted)
    grids = {tensor: grid for tensor in places if (grid := grid_of(places[tensor])) is not None}
    readers = candidates.readers(grids.get)
    found = {tensor: Layer(tensor, grid, readers.get(tensor)) for tensor, grid in grids.items()}
    finest = max(FINEST_CELLS, min((max(layer.grid.size) for layer in found.values()), default=0))
    found = {tensor: layer for tensor, layer in found.items() if max(layer.grid.size) <= finest}
    whole = {tensor for tensor in candidates.cuts if tensor in found and not _goes_on(view, tensor, found, path)}
    return tuple(
        layer
        for layer in sorted(found.values(), key=lambda layer: view.place(layer.tensor))
        if layer.tensor in whole or layer.reader is not None
    )


def _goes_on(view: GraphView, tensor: str, found: Mapping[str, Layer], path: list[int]) -> bool:
    """Whether all that takes a tensor is one operator without weights, which leaves its cells as they are."""
    takers = set(view.takers[tensor]).intersection(path)
    if len(takers) != 1:
        return False
    (taker,) = takers
    after = found.get(view.nodes[taker].output[0])
    return after is not None and after.grid.size == found[tensor].grid.size and not has_weights(view, taker)


def chosen(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """At most five stages, from coarse to fine; the last layer is one.

    Of every resolution the last layer. Where there is only one, as in a vision transformer, layers at even distances:
    what attentions read, if there are any, and the last.
    """
    last = layers[-1]
    shown = [layer for layer in layers if min(layer.grid.size) >= min(last.grid.size)]
    by_size = {layer.grid.size: layer for layer in shown}  # the last of each
    if len(by_size) > 1:
        return tuple(sorted(by_size.values(), key=lambda layer: max(layer.grid.size))[:MOST_STAGES])
    if any(layer.reader is not None for layer in shown):
        shown = [layer for layer in shown if layer.reader is not None or layer is last]
    count = min(MOST_STAGES, len(shown))
    return tuple(shown[step * (len(shown) - 1) // max(count - 1, 1)] for step in reversed(range(count)))

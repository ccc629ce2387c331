"""The tensors of a graph that are stages of a decision: they lie over the picture, and the answer goes through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdedge_export.inspect.grid import Grid, grid_of
from kdedge_export.onnx_node import WEIGHTED
from kdedge_export.surgery.places import follow_places
from kdedge_export.surgery.port import Port
from kdedge_export.surgery.view import Array, GraphView

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
    weighted = [at for at in path if _has_weights(view, at)] or [-1]
    cuts = view.cuts(port.name, logits)
    read = _what_attention_reads(view, cuts, path)
    wanted = {
        tensor
        for tensor in {*cuts[1:-1], *(tensor for way in read for tensor in way)}
        if values[tensor].dtype.kind == "f" and view.nodes[view.place(tensor)].op_type != "Pad"
        if weighted[0] <= view.place(tensor) < weighted[-1]
    }
    places = follow_places(view, values, port, path, wanted)
    grids = {tensor: grid for tensor in places if (grid := grid_of(places[tensor])) is not None}
    readers = _readers(read, grids)
    found = {tensor: Layer(tensor, grid, readers.get(tensor)) for tensor, grid in grids.items()}
    finest = max(FINEST_CELLS, min((max(layer.grid.size) for layer in found.values()), default=0))
    found = {tensor: layer for tensor, layer in found.items() if max(layer.grid.size) <= finest}
    whole = {tensor for tensor in cuts if tensor in found and not _goes_on(view, tensor, found, path)}
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
    return after is not None and after.grid.size == found[tensor].grid.size and not _has_weights(view, taker)


def _has_weights(view: GraphView, at: int) -> bool:
    node = view.nodes[at]
    return node.op_type in WEIGHTED and any(view.is_weight(item) for item in node.input[:2])


def _what_attention_reads(view: GraphView, cuts: list[str], path: list[int]) -> list[list[str]]:
    """For each attention the tensors with weights behind them that all it takes goes through, the last first.

    An attention is a softmax; what it weighs comes from the last tensor that all of the answer goes through, which is
    the last of the list.
    """
    read = []
    for at in (at for at in path if view.nodes[at].op_type == "Softmax"):
        weighing = str(view.nodes[at].output[0])
        before = next(tensor for tensor in reversed(cuts) if view.place(tensor) < at)
        way = [
            tensor
            for tensor in reversed(view.cuts(before, weighing)[1:-1])
            if any(_has_weights(view, between) for between in view.between(tensor, weighing))
        ]
        read.append([*way, before])
    return read


def _readers(read: list[list[str]], grids: Mapping[str, Grid]) -> dict[str, int]:
    """The number of the attention that reads a tensor first: the last on its way that has the width it came with."""
    numbers: dict[str, int] = {}
    for number, (*way, before) in enumerate(read, start=1):
        width = grids[before].channels if before in grids else None
        tensor = next((item for item in way if item in grids and width in (None, grids[item].channels)), None)
        if tensor is not None:
            numbers.setdefault(tensor, number)
    return numbers


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

"""The tensors of a graph that are stages of a decision: they lie over the picture, and the answer goes through them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdedge_export.inspect.grid import Grid, grid_of
from kdedge_export.surgery.places import follow_places
from kdedge_export.surgery.port import Port
from kdedge_export.surgery.view import Array, GraphView

__all__ = ["Layer", "chosen", "layers_with_cells"]

MOST_STAGES = 5
FINEST_CELLS = 60
"""Along the longer side of the finest stage that is shown, where there are coarser ones."""
_WEIGHTED = {"Conv", "Gemm", "MatMul"}


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

    They are what all of the answer goes through. Where that has one resolution only, as in a vision transformer, it is
    what each attention reads instead, behind its norm, and what comes after the last.

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
        for tensor in (*cuts[1:-1], *read)
        if values[tensor].dtype.kind == "f" and view.nodes[view.place(tensor)].op_type != "Pad"
        if weighted[0] <= view.place(tensor) < weighted[-1]
    }
    places = follow_places(view, values, port, path, wanted)
    grids = {tensor: grid for tensor in places if (grid := grid_of(places[tensor])) is not None}
    found = {tensor: Layer(tensor, grid, read.get(tensor)) for tensor, grid in grids.items()}
    finest = max(FINEST_CELLS, min((max(layer.grid.size) for layer in found.values()), default=0))
    found = {tensor: layer for tensor, layer in found.items() if max(layer.grid.size) <= finest}
    whole = [found[tensor] for tensor in cuts if tensor in found and not _goes_on(view, tensor, found, path)]
    readers = [layer for layer in found.values() if layer.reader is not None]
    if len(readers) > 1 and len({layer.grid.size for layer in whole}) == 1:
        start = view.place(readers[-1].tensor)
        whole = readers + [layer for layer in whole if view.place(layer.tensor) > start]
    return tuple(whole)


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
    return node.op_type in _WEIGHTED and any(view.is_weight(item) for item in node.input[:2])


def _what_attention_reads(view: GraphView, cuts: list[str], path: list[int]) -> dict[str, int]:
    """For each attention the last tensor before its weights that all it takes goes through, and the attention's number.

    An attention is a softmax; what it weighs comes from the last tensor that all of the answer goes through.
    """
    read: dict[str, int] = {}
    softmaxes = [at for at in path if view.nodes[at].op_type == "Softmax"]
    for number, at in enumerate(softmaxes, start=1):
        weights = str(view.nodes[at].output[0])
        before = next(tensor for tensor in reversed(cuts) if view.place(tensor) < at)
        taken = (
            tensor
            for tensor in reversed(view.cuts(before, weights)[:-1])
            if any(_has_weights(view, between) for between in view.between(tensor, weights))
        )
        tensor = next(taken, None)
        if tensor is not None and tensor not in cuts:
            read.setdefault(tensor, number)
    return read


def chosen(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """At most five stages, from coarse to fine; the last layer is one.

    Of every resolution the last layer; where there is only one, layers at even distances, which are what attention
    reads where they can be.
    """
    last = layers[-1]
    shown = [layer for layer in layers if min(layer.grid.size) >= min(last.grid.size)]
    by_size = {layer.grid.size: layer for layer in shown}  # the last of each
    if len(by_size) > 1:
        return tuple(sorted(by_size.values(), key=lambda layer: max(layer.grid.size))[:MOST_STAGES])
    readers = [layer for layer in shown if layer.reader is not None and layer is not last]
    shown = [*readers, last] if readers else shown
    count = min(MOST_STAGES, len(shown))
    return tuple(shown[step * (len(shown) - 1) // max(count - 1, 1)] for step in reversed(range(count)))

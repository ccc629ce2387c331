"""The tensors of a graph that can be looked at: what all of the answer goes through, and what attentions read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdedge_export.onnx_graph.graph_index import GraphView
from kdedge_export.onnx_graph.node_attributes import WEIGHTED
from kdedge_export.onnx_graph.spatial.spatial_grid import Grid

__all__ = ["Candidates", "attentions", "find_candidates", "has_weights"]


@dataclass(frozen=True)
class Candidates:
    """Tensors between the first weights on a path and the last."""

    cuts: tuple[str, ...]
    """Through which all of the answer goes, in order."""
    tensors: frozenset[str]
    """Those, and those that attentions may read."""
    ways: tuple[tuple[str, ...], ...]
    """To each attention: the tensors with weights behind them that all it takes goes through, the last first. What it
    weighs comes from the last tensor that all of the answer goes through, which ends the list."""

    def readers(self, grid: Callable[[str], Grid | None]) -> dict[str, int]:
        """By tensor, which attention reads it first, counted from 1.

        An attention reads the last on its way that has the width it came with: behind are projections.

        Args:
            grid: of a tensor, None where it does not lie over the picture.
        """
        numbers: dict[str, int] = {}
        for number, (*way, before) in enumerate(self.ways, start=1):
            came = grid(before)
            widths = ((item, found.channels) for item in way if (found := grid(item)) is not None)
            tensor = next((item for item, width in widths if came is None or width == came.channels), None)
            if tensor is not None:
                numbers.setdefault(tensor, number)
        return numbers


def find_candidates(view: GraphView, cuts: Sequence[str], path: Sequence[int]) -> Candidates:
    """All on a path.

    Args:
        view: the graph.
        cuts: the tensors that all of the answer goes through, from the image to the logits.
        path: the nodes between both.
    """
    weighted = [at for at in path if has_weights(view, at)] or [-1]
    ways = tuple(_way_to(view, cuts, at) for at in attentions(view, path))
    between = {
        tensor
        for tensor in {*cuts[1:-1], *(tensor for way in ways for tensor in way)}
        if weighted[0] <= view.place(tensor) < weighted[-1]
    }
    return Candidates(tuple(tensor for tensor in cuts if tensor in between), frozenset(between), ways)


def attentions(view: GraphView, path: Sequence[int]) -> list[int]:
    """The softmaxes among some nodes, and the operators that hold one."""
    return [at for at in path if view.nodes[at].op_type in ("Softmax", "Attention")]


def has_weights(view: GraphView, at: int) -> bool:
    """Whether a node multiplies with weights; adding them, as a bias, is not enough."""
    node = view.nodes[at]
    return node.op_type in WEIGHTED and any(view.is_weight(item) for item in node.input[:2])


def _way_to(view: GraphView, cuts: Sequence[str], at: int) -> tuple[str, ...]:
    weighing = str(view.nodes[at].output[0])
    before = next(tensor for tensor in reversed(cuts) if view.place(tensor) < at)
    way = [
        tensor
        for tensor in reversed(view.cuts(before, weighing)[1:-1])
        if any(has_weights(view, between) for between in view.between(tensor, weighing))
    ]
    return (*way, before)

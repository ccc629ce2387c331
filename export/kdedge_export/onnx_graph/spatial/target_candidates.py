"""Candidate target tensors: those on every path to the logits, and those read by attentions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdedge_export.onnx_graph.graph_index import GraphIndex
from kdedge_export.onnx_graph.node_attributes import WEIGHTED
from kdedge_export.onnx_graph.spatial.spatial_grid import SpatialGrid

__all__ = ["TargetCandidates", "attentions", "find_candidates", "has_weights"]


@dataclass(frozen=True)
class TargetCandidates:
    """Candidate tensors between the first and the last weights on a path."""

    cuts: tuple[str, ...]
    """Tensors on every path to the logits, in order."""
    tensors: frozenset[str]
    """All candidates: those on every path, and those that attentions may read."""
    ways: tuple[tuple[str, ...], ...]
    """Tensors on every path to each attention that are followed by weights, last first. Each list ends with the last
    tensor on every path to the logits, which the attention's values come from."""

    def readers(self, grid: Callable[[str], SpatialGrid | None]) -> dict[str, int]:
        """Map each tensor to the number, from 1, of the first attention that reads it.

        An attention reads the last tensor on its path with the original width; later ones are projections.

        Args:
            grid: function that returns a tensor's grid, or None without spatial positions.
        """
        numbers: dict[str, int] = {}
        for number, (*way, before) in enumerate(self.ways, start=1):
            came = grid(before)
            widths = ((item, found.channels) for item in way if (found := grid(item)) is not None)
            tensor = next((item for item, width in widths if came is None or width == came.channels), None)
            if tensor is not None:
                numbers.setdefault(tensor, number)
        return numbers


def find_candidates(view: GraphIndex, cuts: Sequence[str], path: Sequence[int]) -> TargetCandidates:
    """Find all candidates on a path.

    Args:
        view: the graph.
        cuts: the tensors on every path from the image to the logits.
        path: the nodes between both.
    """
    weighted = [at for at in path if has_weights(view, at)] or [-1]
    ways = tuple(_way_to(view, cuts, at) for at in attentions(view, path))
    between = {
        tensor
        for tensor in {*cuts[1:-1], *(tensor for way in ways for tensor in way)}
        if weighted[0] <= view.place(tensor) < weighted[-1]
    }
    return TargetCandidates(tuple(tensor for tensor in cuts if tensor in between), frozenset(between), ways)


def attentions(view: GraphIndex, path: Sequence[int]) -> list[int]:
    """Return the nodes that are a softmax or an attention operator."""
    return [at for at in path if view.nodes[at].op_type in ("Softmax", "Attention")]


def has_weights(view: GraphIndex, at: int) -> bool:
    """Return True if a node multiplies by weights; adding a bias does not count."""
    node = view.nodes[at]
    return node.op_type in WEIGHTED and any(view.is_weight(item) for item in node.input[:2])


def _way_to(view: GraphIndex, cuts: Sequence[str], at: int) -> tuple[str, ...]:
    weighing = str(view.nodes[at].output[0])
    before = next(tensor for tensor in reversed(cuts) if view.place(tensor) < at)
    way = [
        tensor
        for tensor in reversed(view.cuts(before, weighing)[1:-1])
        if any(has_weights(view, between) for between in view.between(tensor, weighing))
    ]
    return (*way, before)

"""Propagate image coordinates through the graph using shapes only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from kdedge_export.onnx_graph.graph_index import Array, GraphIndex, run_graph, shapes_of, subgraphs
from kdedge_export.onnx_graph.graph_input import GraphInput
from kdedge_export.onnx_graph.spatial.coordinates import TensorCoordinates, track_coordinates
from kdedge_export.onnx_graph.spatial.spatial_grid import SpatialGrid, grid_of
from kdedge_export.spatial_layout import SpatialLayout

__all__ = ["SpatialTracker", "track_positions"]


@dataclass(frozen=True)
class SpatialTracker:
    """Image coordinates of tensors."""

    places: Mapping[str, TensorCoordinates]
    """Coordinates of the requested tensors with a leading batch axis, for the first image."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shapes of all tensors on the path from the image to the logits, in an example run."""
    images: int
    """Batch size of that run."""

    def grid(self, tensor: str) -> SpatialGrid | None:
        """Return the grid of a tensor; None if its positions have no supported layout."""
        grid = grid_of(self.places[tensor]) if tensor in self.places else None
        return grid if grid is not None and grid.layout is not None else None

    def layout(self, tensor: str) -> SpatialLayout | None:
        """Return the layout of a tensor, or None."""
        grid = self.grid(tensor)
        return None if grid is None else grid.layout

    def planes(self, layout: SpatialLayout) -> tuple[str, int] | None:
        """Return the first tensor `[N, C, h, w]`, else `[N, h, w, C]`, of this resolution, and its height axis."""
        size = layout.height, layout.width
        whole = [(name, shape) for name, shape in self.shapes.items() if len(shape) == 4 and shape[0] == self.images]
        found = ((name, axis) for axis in (2, 1) for name, shape in whole if shape[axis : axis + 2] == size)
        return next(found, None)


def track_positions(
    view: GraphIndex, port: GraphInput, path: list[int], wanted: Iterable[str], feed: Mapping[str, Array], name: str
) -> SpatialTracker:
    """Propagate the image coordinates to some tensors.

    Args:
        view: the graph.
        port: its image input.
        path: the nodes from the image to the logits.
        wanted: tensors of the path.
        feed: an example.
        name: name used in messages.
    """
    feed = {item: value[: port.shape[0] or 1] for item, value in feed.items()}
    path = [at for at in path if "Sequence" not in view.nodes[at].op_type]
    made = [item for at in path if not subgraphs(view.nodes[at]) for item in view.nodes[at].output if item]
    shapes = shapes_of(view.model, made, feed, name)
    read = {item for at in path for item in view.nodes[at].input if item} - shapes.keys() - feed.keys()
    constants = {item: value for item in read if (value := view.value(item)) is not None}
    held = constants | run_graph(view.model, sorted(read - constants.keys()), feed, name)
    # Only the shapes of image-dependent tensors are needed.
    values = {item: np.broadcast_to(np.float32(0), shape) for item, shape in shapes.items()}
    images = len(feed[port.name])
    apart = [item for item in wanted if len(shapes.get(item, ())) in (3, 4) and shapes[item][0] == images]
    places = track_coordinates(view, feed | held | values, port, path, apart)
    return SpatialTracker({item: found.moved(lambda part: part[:1]) for item, found in places.items()}, shapes, images)

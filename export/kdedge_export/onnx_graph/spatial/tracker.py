"""The cells of a graph's tensors, followed from the image without keeping what the tensors hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from kdedge_export.onnx_graph.graph_index import Array, GraphView, run_graph, shapes_of, subgraphs
from kdedge_export.onnx_graph.graph_input import Port
from kdedge_export.onnx_graph.spatial.coordinates import Places, follow_places
from kdedge_export.onnx_graph.spatial.spatial_grid import Grid, grid_of
from kdedge_export.spatial_layout import Layout

__all__ = ["Followed", "follow"]


@dataclass(frozen=True)
class Followed:
    """Where tensors lie over the picture."""

    places: Mapping[str, Places]
    """Of those that were asked for and that have the batch first: of the first image."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of all tensors on the way from the image to the logits, in an example run."""
    images: int
    """Of that run."""

    def grid(self, tensor: str) -> Grid | None:
        """Of a tensor; None where it has no cells in one of the layouts of features."""
        grid = grid_of(self.places[tensor]) if tensor in self.places else None
        return grid if grid is not None and grid.layout is not None else None

    def layout(self, tensor: str) -> Layout | None:
        """Of a tensor."""
        grid = self.grid(tensor)
        return None if grid is None else grid.layout

    def planes(self, layout: Layout) -> tuple[str, int] | None:
        """The first tensor `[N, C, h, w]` with these cells, else `[N, h, w, C]`, and the axis of its height."""
        size = layout.height, layout.width
        whole = [(name, shape) for name, shape in self.shapes.items() if len(shape) == 4 and shape[0] == self.images]
        found = ((name, axis) for axis in (2, 1) for name, shape in whole if shape[axis : axis + 2] == size)
        return next(found, None)


def follow(
    view: GraphView, port: Port, path: list[int], wanted: Iterable[str], feed: Mapping[str, Array], name: str
) -> Followed:
    """Follow the image's places to some tensors.

    Args:
        view: the graph.
        port: its image input.
        path: the nodes from the image to the logits.
        wanted: tensors of the path.
        feed: an example.
        name: what messages call the graph.
    """
    feed = {item: value[: port.shape[0] or 1] for item, value in feed.items()}
    path = [at for at in path if "Sequence" not in view.nodes[at].op_type]
    made = [item for at in path if not subgraphs(view.nodes[at]) for item in view.nodes[at].output if item]
    shapes = shapes_of(view.model, made, feed, name)
    read = {item for at in path for item in view.nodes[at].input if item} - shapes.keys() - feed.keys()
    constants = {item: value for item in read if (value := view.value(item)) is not None}
    held = constants | run_graph(view.model, sorted(read - constants.keys()), feed, name)
    # Of what the image decides only the shapes matter.
    values = {item: np.broadcast_to(np.float32(0), shape) for item, shape in shapes.items()}
    images = len(feed[port.name])
    apart = [item for item in wanted if len(shapes.get(item, ())) in (3, 4) and shapes[item][0] == images]
    places = follow_places(view, feed | held | values, port, path, apart)
    return Followed({item: found.moved(lambda part: part[:1]) for item, found in places.items()}, shapes, images)

"""Example inputs of a graph of any modality."""

import numpy as np
import onnx

from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.file_metadata import read_metadata
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex
from kdedge_export.onnx_graph.graph_input import find_image_input, make_example_feed

__all__ = ["example_feed"]


def example_feed(model: onnx.ModelProto, name: str, *, count: int = 1, side_px: int | None = None) -> dict[str, Array]:
    """Return random samples for a graph.

    Args:
        model: file of kdedge for samples of any modality, or of another framework for images.
        name: name of the model in messages.
        count: number of samples.
        side_px: height and width of images in pixels, if they are dynamic.

    Raises:
        ModelFileError: A file of another framework takes no images.
    """
    metadata = read_metadata(model)
    if metadata is None or metadata.input.kind == "image":
        return make_example_feed(find_image_input(GraphIndex(model), name), side_px, images=count)
    spec = metadata.input
    return {spec.name: modality_of(spec).random_samples(spec, count, np.random.default_rng(0))}

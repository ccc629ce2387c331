"""Example inputs of a graph of any modality."""

import numpy as np
import onnx

from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex
from kdedge_export.onnx_graph.graph_input import find_image_input, make_example_feed
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.modalities import InputSpec

__all__ = ["declared_input", "example_feed"]


def declared_input(model: onnx.ModelProto) -> InputSpec | None:
    """Return the input that the metadata of a file from kdedge declares; None for other files."""
    props = {item.key: item.value for item in model.metadata_props}
    return Metadata.from_props(props).input if "kdedge.schema" in props else None


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
    spec = declared_input(model)
    if spec is None or spec.kind == "image":
        return make_example_feed(find_image_input(GraphIndex(model), name), side_px, images=count)
    return {spec.name: modality_of(spec).random_samples(spec, count, np.random.default_rng(0))}

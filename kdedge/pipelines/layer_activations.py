"""Activations for Score-CAM, including files that do not name their target layer."""

import numpy as np

from kdedge_export.errors import HeadNotSupported
from kdedge_export.inspection.layer_attribution import last_layer
from kdedge_export.onnx_graph.graph_index import GraphIndex, TensorProbe
from kdedge_export.onnx_graph.graph_input import find_image_input, make_example_feed
from kdedge_export.onnx_import.foreign_file import ForeignFile
from kdedge_export.onnx_import.model_loading import load_foreign_model
from kdedge_runtime import Model
from kdedge_runtime.errors import UsageError
from kdedge_runtime.explainers.target_activations import Activations, target_activations
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["layer_activations"]


def layer_activations(model: Model) -> Activations:
    """Return the activations of the target layer named in the file (closed-form heads), or else of the last layer.

    The last layer is the last one with spatial positions that affects the logits, as for a differentiated map. In a
    vision transformer it is the patch input of the last attention.

    Raises:
        UsageError: there is no such layer, or its resolution differs from the map in the file, which has another
            target.
    """
    try:
        return target_activations(model)
    except UsageError as error:
        graph, name = load_foreign_model(ForeignFile.open(model.path)), str(model.path)
        feed = make_example_feed(find_image_input(GraphIndex(graph), name), None, images=1)
        try:
            layer = last_layer(graph, feed, name)
        except HeadNotSupported:
            raise error from None
        outputs = model.metadata.outputs
        if model.has_map and (outputs.map_height, outputs.map_width) != layer.grid.size:
            raise error
        probe, image = TensorProbe(graph, [layer.tensor], name), model.metadata.input.name

        def activations(pixels: Pixels) -> Floats:
            held = probe({image: np.ascontiguousarray(pixels[None])})[layer.tensor]
            return layer.grid.planes(held).astype(np.float32)

        return activations

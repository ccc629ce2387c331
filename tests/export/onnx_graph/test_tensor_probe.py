"""Values of any tensors of a graph."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge_export.onnx_graph.graph_index import TensorProbe
from kdedge_runtime.errors import ModelFileError


def test_probe_runs_only_nodes_that_lead_to_the_wanted_tensors(tmp_path: Path) -> None:
    """onnxruntime runs all nodes of a graph."""
    nodes = [
        helper.make_node("Relu", ["x"], ["wanted"]),
        helper.make_node("Reshape", ["x", "shape"], ["impossible"]),
        helper.make_node("Add", ["impossible", "wanted"], ["y"]),
    ]
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3])] for name in ("x", "y")]
    constants = [numpy_helper.from_array(np.array([4]), "shape")]
    model = helper.make_model(helper.make_graph(nodes, "net", *ports, constants))
    x = np.array([[-1, 2, -3], [4, -5, 6]], np.float32)
    assert np.array_equal(TensorProbe(model, ["wanted"], "net")({"x": x})["wanted"], np.maximum(x, 0))
    with pytest.raises(ModelFileError):
        TensorProbe(model, ["y"], "net")({"x": x})
    assert len(model.graph.node) == 3 and len(model.graph.initializer) == 1

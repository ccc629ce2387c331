"""Edits on onnx_ir keep everything else in a model file."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge_export.onnx_graph.edits import (
    constant_input,
    gated_product,
    has_input,
    infer_shapes,
    initializer,
    make_node,
    replace_node,
    to_proto,
)
from kdedge_export.onnx_graph.session import open_session
from kdedge_export.quantization.prepare import prepare_graph
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime.errors import ModelFileError

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def foreign(*extra: onnx.NodeProto) -> onnx.ModelProto:
    """Build a graph with branches that read outer tensors, a contrib operator, and an empty name."""

    def branch(op_type: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(op_type, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op_type, ["x", "captured"], [op_type])], op_type, [], [output])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["is_positive"], name="first"),
        helper.make_node(
            "If", ["is_positive"], ["chosen"], "twice", then_branch=branch("Add"), else_branch=branch("Mul")
        ),
        helper.make_node("Clip", ["chosen", "", "most"], ["clipped"]),
        helper.make_node("FastGelu", ["clipped"], ["logits"], domain="com.microsoft"),
        *extra,
    ]
    constants = {"captured": 2.0, "zero": 0.0, "most": 2.5}
    zero = helper.make_tensor_value_info("zero", TensorProto.FLOAT, [])
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]), zero],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="theirs")
    helper.set_model_props(model, {"author": "Grüße", "kdedge.labels": '["ant", "bee"]'})
    return model


def logits(model: onnx.ModelProto) -> np.ndarray:
    (found,) = open_session(model, exact_sums=True).run(["logits"], {"x": X})
    return np.asarray(found)


def named(graph: ir.Graph, output: str) -> ir.Node:
    return next(node for node in graph if node.outputs[0].name == output)


def test_round_trip_is_lossless() -> None:
    model = foreign(helper.make_node("Neg", ["logits"], ["more"], name="twice"))  # also of duplicate names
    assert to_proto(ir.from_proto(model)) == model


def test_replacing_nodes_take_over_readers_in_branches_and_outputs() -> None:
    original = foreign()
    original.graph.node.insert(0, helper.make_node("Neg", ["two"], ["captured"]))
    original.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(-2), "two"))
    model = ir.from_proto(original)
    graph = model.graph
    negative, end = named(graph, "captured"), named(graph, "logits")
    zero = make_node("Sub", [negative.inputs[0]] * 2, "nothing")
    replace_node(negative, [zero, make_node("Sub", [*zero.outputs, negative.inputs[0]], "difference")])
    replace_node(end, [make_node("Gelu", end.inputs[:1], "other", approximate="tanh")])
    changed = to_proto(model)
    onnx.checker.check_model(changed)
    assert [node.op_type for node in changed.graph.node] == ["Sub", "Sub", "ReduceSum", "Greater", "If", "Clip", "Gelu"]
    assert changed.graph.output == foreign().graph.output
    np.testing.assert_allclose(logits(changed), logits(foreign()), rtol=1e-5, atol=1e-6)


def test_initializer_of_the_same_name_is_replaced() -> None:
    model = ir.from_proto(foreign())
    value = initializer(model.graph, "most", np.array(0.25, np.float32))
    assert value.consumers() == (named(model.graph, "clipped"),)
    assert initializer(model.graph, "bytes", np.arange(3, dtype=np.int8)[::-1]).dtype == ir.DataType.INT8
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in to_proto(model).graph.initializer}
    assert stored["most"] == 0.25 and stored["bytes"].tolist() == [2, 1, 0]
    assert not np.allclose(logits(to_proto(model)), logits(foreign()))


def test_constant_input_is_none_for_missing_omitted_and_computed_inputs() -> None:
    clip = named(ir.from_proto(foreign()).graph, "clipped")  # ["chosen", "", "most"]
    assert [has_input(clip, index) for index in range(4)] == [True, False, True, False]
    assert constant_input(clip, 2) == 2.5
    assert [constant_input(clip, index) for index in (0, 1, 3)] == [None] * 3


def test_shapes_are_those_after_the_edit() -> None:
    model = ir.from_proto(foreign())
    infer_shapes(model)
    clip = named(model.graph, "clipped")
    assert clip.outputs[0].shape == ir.Shape(["n", 4])
    shape = initializer(model.graph, "shape", np.array([0, 2, 2]))
    replace_node(clip, [make_node("Reshape", [clip.inputs[0], shape], "pairs")])
    infer_shapes(model)
    assert named(model.graph, "clipped").outputs[0].shape == ir.Shape(["n", 2, 2])
    assert {value.name for value in to_proto(model).graph.value_info} >= {"clipped", "chosen"}
    assert "shape" not in {value.name for value in to_proto(model).graph.value_info}


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ([], True),
        ([helper.make_node("Neg", ["gate"], ["more"])], False),
        ([helper.make_node("Neg", ["logits"], ["more"])], False),
    ],
    ids=["alone", "gate is read", "input is read"],
)
def test_gated_product_is_read_only_once(extra: list[onnx.NodeProto], found: bool) -> None:
    gate = [
        helper.make_node("Sigmoid", ["logits"], ["gate"]),
        helper.make_node("Mul", ["gate", "logits"], ["product"]),
    ]
    graph = ir.from_proto(foreign(*gate, *extra)).graph
    assert gated_product(named(graph, "gate")) is (named(graph, "product") if found else None)


def test_prepared_graph_keeps_what_branches_read() -> None:
    prepared = prepare_graph(ExportedGraph(foreign(), frozenset()), bytes_in=False)
    assert set(prepared.model.graph.initializers) == {"captured", "zero", "most"}
    np.testing.assert_array_equal(logits(prepared.proto), logits(foreign()))
    assert prepared.proto.metadata_props == foreign().metadata_props


def test_sparse_weights_are_rejected() -> None:
    model = foreign()
    values, places = numpy_helper.from_array(np.ones(1, np.float32), "sparse"), numpy_helper.from_array(np.array([2]))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    with pytest.raises(ModelFileError, match="sparse"):
        prepare_graph(ExportedGraph(model, frozenset()), bytes_in=False)

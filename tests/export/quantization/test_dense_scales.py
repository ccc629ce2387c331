"""Test int8 weights, scales and products of a dense layer against NumPy."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge_export.onnx_graph.edits import to_proto
from kdedge_export.onnx_graph.session import open_session
from kdedge_export.quantization import QuantizationRecipe
from kdedge_export.quantization.dense_weights import dense_layers, quantize_dense

OUTPUTS, INPUTS, IMAGES = 260, 256, 5
ZEROS, BIASED = 3, 4
"""Outputs with zero weights, and with a bias that is large relative to the weights."""
RNG = np.random.default_rng(0)
WEIGHT = (RNG.normal(size=(OUTPUTS, INPUTS)) * RNG.uniform(0.1, 4, (OUTPUTS, 1))).astype(np.float32)
WEIGHT[ZEROS], WEIGHT[BIASED] = 0, 1e-12
BIAS = RNG.normal(size=OUTPUTS).astype(np.float32)
BIAS[BIASED] = 40
X = RNG.uniform(-1, 3, (IMAGES, INPUTS)).astype(np.float32)
V = (RNG.normal(size=(IMAGES, OUTPUTS)) * 10.0 ** np.arange(-2, 3)[:, None]).astype(np.float32)
V[:, ZEROS] = 1
REACH = (-0.75, 2.5)


def layer(
    *extra: onnx.NodeProto, weight: np.ndarray | None = WEIGHT, bias: str | None = "bias", **settings: Any
) -> ir.Model:
    """Return a dense layer whose weight is also read by a row lookup and a backward product, and further nodes."""
    inputs = ["x", "weight", *([] if bias is None else [bias])]
    nodes = [
        helper.make_node("Identity", ["computed_source"], ["computed"], name="source"),
        helper.make_node("Gemm", inputs, ["logits"], name="dense", **(settings or {"transB": 1})),
        helper.make_node("Gather", ["weight", "picked"], ["row"], name="row", axis=0),
        helper.make_node("MatMul", ["v", "weight"], ["back"], name="back"),
        *extra,
    ]
    constants = {"bias": BIAS, "computed_source": BIAS} | ({} if weight is None else {"weight": weight})
    shapes = {"x": ["n", INPUTS], "v": ["n", OUTPUTS]}
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    given.append(helper.make_tensor_value_info("picked", TensorProto.INT64, ["k"]))
    if weight is None:
        given.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [OUTPUTS, INPUTS]))
    shapes = {"logits": ["n", OUTPUTS], "row": ["k", INPUTS], "back": ["n", INPUTS]}
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "dense", given, results, stored)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


ODD = {
    "transposed input": {"transA": 1, "transB": 1},
    "weights by columns": {"transB": 0},
    "weights by columns, by default": {"alpha": 1.0},
    "scaled product": {"alpha": 0.5, "transB": 1},
    "scaled bias": {"beta": 2.0, "transB": 1},
    "computed bias": {"bias": "computed"},
    "computed weight": {"weight": None},
}


class TestEligibleLayers:
    @pytest.mark.parametrize("left_alone", [{"dense"}, {"row"}, {"back", "others"}])
    def test_excluded_layers_and_shared_weights_are_eligible(self, left_alone: set[str]) -> None:
        assert dense_layers(layer().graph, left_alone) == ["dense"]
        assert dense_layers(layer(alpha=1.0, beta=1.0, transA=0, transB=1, bias=None).graph, left_alone) == ["dense"]
        assert dense_layers(layer(bias="").graph, left_alone) == ["dense"]

    def test_layers_for_the_default_quantizer_are_not_eligible(self) -> None:
        assert dense_layers(layer().graph, {"others"}) == []

    @pytest.mark.parametrize("odd", list(ODD))
    def test_other_product_forms_are_not_eligible(self, odd: str) -> None:
        assert dense_layers(layer(**ODD[odd]).graph, {"dense"}) == []

    @pytest.mark.parametrize(
        "reader",
        [
            helper.make_node("Neg", ["weight"], ["odd"], name="odd"),
            helper.make_node("Gather", ["weight", "picked"], ["odd"], name="odd", axis=1),
            helper.make_node("Gather", ["computed", "weight"], ["odd"], name="odd"),
            helper.make_node("MatMul", ["weight", "x"], ["odd"], name="odd"),
        ],
        ids=["negated", "columns", "indices", "first factor"],
    )
    def test_weights_with_other_readers_are_not_eligible(self, reader: onnx.NodeProto) -> None:
        assert dense_layers(layer(reader).graph, {"dense"}) == []

    def test_row_lookup_on_the_default_axis_is_eligible(self) -> None:
        reader = helper.make_node("Gather", ["weight", "picked"], ["odd"], name="odd")
        assert dense_layers(layer(reader).graph, {"dense"}) == ["dense"]

    @pytest.mark.parametrize(("rows", "found"), [(256, ["dense"]), (255, [])])
    def test_layers_of_at_least_65536_weights_are_eligible(self, rows: int, found: list[str]) -> None:
        assert dense_layers(layer(weight=WEIGHT[:rows].copy()).graph, {"dense"}) == found


def constants_of(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


@pytest.mark.parametrize(
    ("recipe", "largest", "least"),
    [
        (QuantizationRecipe(False), 127, 0),
        (QuantizationRecipe(True), 64, 0),
        (QuantizationRecipe(False, activations="int8"), 127, -128),
    ],
    ids=["8 bits", "7 bits", "signed"],
)
@pytest.mark.parametrize("reach", [REACH, (0.5, 2.5), (-2.0, -0.5), (0.0, 0.0)])
@pytest.mark.parametrize("bias", ["bias", None])
def test_quantized_layer_matches_numpy(
    recipe: QuantizationRecipe, largest: int, least: int, reach: tuple[float, float], bias: str | None
) -> None:
    model = layer(bias=bias)
    quantize_dense(model.graph, {"dense": reach}, recipe)
    onnx.checker.check_model(to_proto(model))
    session = open_session(to_proto(model), exact_sums=True)
    picked = np.array([7, ZEROS, BIASED, OUTPUTS - 1])
    logits, row, back = session.run(["logits", "row", "back"], {"x": X, "v": V, "picked": picked})

    low, high = min(reach[0], 0.0), max(reach[1], 0.0)
    step = max(high - low, 1e-6) / 255
    zero = round(-low / step) + least
    offsets = BIAS.astype(float) if bias else np.zeros(OUTPUTS)
    scale = np.maximum(np.abs(WEIGHT).max(axis=1).astype(float) / largest, np.abs(offsets) / step / 2**30)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    steps = np.rint(WEIGHT / scale[:, None])
    assert np.abs(steps).max() == largest

    stored = constants_of(model)
    assert stored["weight_quantized"].dtype == np.int8
    np.testing.assert_array_equal(stored["weight_quantized"], steps)
    np.testing.assert_allclose(stored["weight_scale"], scale, rtol=1e-5)
    np.testing.assert_allclose(stored["logits_input_scale"], step, rtol=1e-5)
    assert stored["logits_input_zero_point"].dtype == (np.uint8 if least == 0 else np.int8)
    assert stored["logits_input_zero_point"] == zero
    for name, kind in (("weight_zero_point", np.int8), ("logits_bias_zero_point", np.int32)):
        assert stored[name].dtype == kind and stored[name].shape == (OUTPUTS,) and not stored[name].any()

    x = (np.clip(np.rint(X / np.float32(step)) + zero, least, least + 255) - zero) * step
    sums = np.rint(offsets / (scale * step))
    assert np.abs(sums).max() <= 2**30 * 1.001
    expected = x @ (steps * scale[:, None]).T + sums * scale * step
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(row, (steps * scale[:, None])[picked], rtol=1e-5)

    scaled = V * scale
    ranges = np.abs(scaled).max(axis=1, keepdims=True)
    shares = np.rint(scaled / ranges * 127) / 127
    expected = (shares @ steps) * ranges
    for image in range(IMAGES):
        # A single value may round to the other neighbor.
        slack = 1.01 * ranges[image] * largest / 127
        assert np.abs(back[image] - expected[image]).max() <= slack
        assert np.corrcoef(back[image], expected[image])[0, 1] > 0.999


def test_zero_gradient_stays_zero() -> None:
    model = layer()
    quantize_dense(model.graph, {"dense": REACH}, QuantizationRecipe(False))
    session = open_session(to_proto(model), exact_sums=True)
    (back,) = session.run(["back"], {"x": X, "v": np.zeros_like(V), "picked": np.array([0])})
    np.testing.assert_array_equal(back, 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_gradient_of_one_output_is_its_weight_row(sign: int) -> None:
    """The only nonzero value is the largest one, so it maps to a whole step of either sign."""
    model = layer()
    quantize_dense(model.graph, {"dense": REACH}, QuantizationRecipe(False))
    session = open_session(to_proto(model), exact_sums=True)
    v = np.zeros_like(V)
    picked = np.array([0, 7, 9, 11, OUTPUTS - 1])
    v[np.arange(IMAGES), picked] = sign * 2.5
    back, row = session.run(["back", "row"], {"x": X, "v": v, "picked": picked})
    np.testing.assert_allclose(back, sign * 2.5 * row, rtol=1e-5, atol=1e-9)


def test_gradients_are_quantized_per_class() -> None:
    """The range of `[N, k, out]` is along the last axis, since each class of each image has its own."""
    model = layer()
    quantize_dense(model.graph, {"dense": REACH}, QuantizationRecipe(False))
    (alone,) = open_session(to_proto(model), exact_sums=True).run(["back"], {"x": X, "v": V, "picked": np.array([0])})
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name in ("v", "back"):
            value.shape = ir.Shape([value.shape[0], "k", *value.shape[1:]])
    session = open_session(to_proto(model), exact_sums=True)
    (together,) = session.run(["back"], {"x": X, "v": V[None], "picked": np.array([0])})
    np.testing.assert_allclose(together[0], alone, rtol=1e-5)


def test_smallest_range_is_positive() -> None:
    model = layer()
    quantize_dense(model.graph, {"dense": REACH}, QuantizationRecipe(False))
    assert constants_of(model)["back_tiny"] == np.finfo(np.float32).tiny


def test_other_layers_are_unchanged() -> None:
    model = layer()
    before = to_proto(model)
    quantize_dense(model.graph, {"another": REACH}, QuantizationRecipe(False))
    assert to_proto(model) == before


def test_replacing_nodes_keep_their_names() -> None:
    model = layer()
    quantize_dense(model.graph, {"dense": REACH}, QuantizationRecipe(False))
    assert [output.producer().name for output in model.graph.outputs] == ["dense", "row", "back"]
    assert [output.name for output in model.graph.outputs] == ["logits", "row", "back"]
    names = [node.name for node in model.graph]
    assert all(names) and len(set(names)) == len(names)

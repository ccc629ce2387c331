"""Propagated coordinates match the values of an image that contains its own coordinates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_toys import node

from kdedge_export.onnx_graph.graph_index import Array, GraphIndex, run_graph
from kdedge_export.onnx_graph.graph_input import find_image_input
from kdedge_export.onnx_graph.spatial.coordinates import TensorCoordinates, track_coordinates
from kdedge_export.onnx_graph.spatial.spatial_grid import grid_of
from kdedge_export.spatial_layout import SpatialLayout

SIDE, CHANNELS = 8, 4
RNG = np.random.default_rng(0)
CONSTANTS: dict[str, Array] = {
    "patches": RNG.normal(size=(CHANNELS, 3, 2, 2)).astype(np.float32),
    "dense": RNG.normal(size=(CHANNELS, CHANNELS)).astype(np.float32),
    "over_tokens": RNG.normal(size=(16, 16)).astype(np.float32),
    "merge": RNG.normal(size=(4 * CHANNELS, CHANNELS)).astype(np.float32),
    "of_a_patch": RNG.normal(size=(3 * 4, CHANNELS)).astype(np.float32),
    "token": np.zeros((1, 1, CHANNELS), np.float32),
}


def places_of(
    nodes: Sequence[onnx.NodeProto], constants: dict[str, Any], image: Array | None = None
) -> TensorCoordinates:
    """Return the coordinates of `y`, from an image `x` `[1, 3, 8, 8]`."""
    held = CONSTANTS | {
        name: value if isinstance(value, np.ndarray) else np.array(value, np.int64) for name, value in constants.items()
    }
    used = {item for made in nodes for item in made.input}
    graph = helper.make_graph(
        list(nodes),
        "places",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in held.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    view = GraphIndex(model)
    feed = {"x": np.zeros((1, 3, SIDE, SIDE), np.float32) if image is None else image}
    made = {item for at in nodes for item in at.output}
    values = held | feed | run_graph(model, sorted(made), feed, "places")
    if image is not None:
        return TensorCoordinates(values["y"], values["y"])
    return track_coordinates(view, values, find_image_input(view, "places"), view.between("x", "y"), ["y"])["y"]


MOVES = {
    "windows": (
        [
            node("Reshape", ["x", "split"], "parts"),
            node("Transpose", ["parts"], "turned", perm=[0, 2, 4, 3, 5, 1]),
            node("Reshape", ["turned", "windows"], "y"),
        ],
        {"split": [1, 3, 2, 4, 2, 4], "windows": [4, 16, 3]},
    ),
    "shifted": (
        [
            node("Slice", ["x", "three", "end", "two"], "lower"),
            node("Slice", ["x", "zero", "three", "two"], "upper"),
            node("Concat", ["lower", "upper"], "y", axis=2),
        ],
        {"zero": [0], "two": [2], "three": [3], "end": [99]},
    ),
    "every second": ([node("Slice", ["x", "one", "end", "axes", "two"], "y")], {
        "one": [1, 0], "end": [99, 99], "axes": [2, 3], "two": [2, 2],
    }),
    "gather and split": (
        [
            helper.make_node("Split", ["x", "sizes"], ["a", "b"], name="parts", axis=3),
            node("Gather", ["b", "order"], "y", axis=2),
        ],
        {"sizes": [5, 3], "order": [7, 0, 3]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_coordinates_move_like_values(name: str) -> None:
    nodes, constants = MOVES[name]
    found = places_of(nodes, constants)
    centers = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    rows, columns = (np.broadcast_to(part, (1, 3, SIDE, SIDE)).copy() for part in (centers[:, None], centers))
    np.testing.assert_array_equal(found.rows, places_of(nodes, constants, rows).rows)
    np.testing.assert_array_equal(found.columns, places_of(nodes, constants, columns).rows)


EMBEDDED = [
    node("Conv", ["x", "patches"], "planes", strides=[2, 2]),
    node("Reshape", ["planes", "flat"], "flattened"),
    node("Transpose", ["flattened"], "tokens", perm=[0, 2, 1]),
]
FLAT = {"flat": [1, CHANNELS, 16]}
ATTENTION = [
    *EMBEDDED,
    node("Concat", ["token", "tokens"], "all", axis=1),
    node("Transpose", ["all"], "keys", perm=[0, 2, 1]),
    node("MatMul", ["all", "keys"], "scores"),
    node("Softmax", ["scores"], "weights"),
    node("MatMul", ["weights", "all"], "y"),
]


PLANES = EMBEDDED[0]
LAYOUTS = {
    "planes": ([PLANES, node("Relu", ["planes"], "y")], {}, SpatialLayout("NCHW", 4, 4)),
    "rows": ([PLANES, node("Transpose", ["planes"], "y", perm=[0, 2, 3, 1])], {}, SpatialLayout("NHWC", 4, 4)),
    "columns": ([PLANES, node("Transpose", ["planes"], "y", perm=[0, 3, 2, 1])], {}, None),
    "tokens": ([*EMBEDDED, node("Concat", ["token", "tokens"], "y", axis=1)], FLAT, SpatialLayout("tokens", 4, 4, 1)),
    "appended token": ([*EMBEDDED, node("Concat", ["tokens", "token"], "y", axis=1)], FLAT, None),
    "tokens with channels first": ([*EMBEDDED, node("Relu", ["flattened"], "y")], FLAT, None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_detected(name: str) -> None:
    nodes, constants, expected = LAYOUTS[name]
    grid = grid_of(places_of(nodes, constants))
    assert grid is not None and grid.layout == expected


class TestCells:
    def test_attention_with_a_class_token_keeps_positions(self) -> None:
        """The result of an attention has the position of its query, even without a residual connection."""
        grid = grid_of(places_of(ATTENTION, FLAT))
        assert grid is not None and grid.size == (4, 4) and grid.channels == CHANNELS
        value = RNG.normal(size=(1, 17, CHANNELS))
        np.testing.assert_array_equal(grid.planes(value), value[0, 1:].T.reshape(CHANNELS, 4, 4))
        np.testing.assert_array_equal(grid.beside(value), value[0, :1].T)

    def test_two_prefix_tokens_with_channels_first(self) -> None:
        nodes = [*EMBEDDED, node("Concat", ["token", "token", "tokens"], "all", axis=1)]
        grid = grid_of(places_of([*nodes, node("Transpose", ["all"], "y", perm=[0, 2, 1])], FLAT))
        assert grid is not None
        value = RNG.normal(size=(1, CHANNELS, 18))
        np.testing.assert_array_equal(grid.planes(value), value[0, :, 2:].reshape(CHANNELS, 4, 4))
        np.testing.assert_array_equal(grid.beside(value), value[0, :, :2])

    def test_patches_cut_by_reshaping_have_positions(self) -> None:
        """A dense layer on a patch's pixels has the position of the patch's center."""
        nodes = [
            node("Reshape", ["x", "split"], "parts"),
            node("Transpose", ["parts"], "turned", perm=[0, 2, 4, 3, 5, 1]),
            node("Reshape", ["turned", "rows"], "pixels"),
            node("MatMul", ["pixels", "of_a_patch"], "y"),
        ]
        places = places_of(nodes, {"split": [1, 3, 4, 2, 4, 2], "rows": [1, 16, 12]})
        assert grid_of(places) is not None
        np.testing.assert_allclose(places.rows[0, :, 0].reshape(4, 4)[:, 0], (np.arange(4) + 0.5) / 4)
        np.testing.assert_allclose(places.columns[0, :, 0].reshape(4, 4)[0], (np.arange(4) + 0.5) / 4)

    def test_merged_patches_are_fine_before_their_weights_and_coarse_after(self) -> None:
        corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
        nodes = [node("Conv", ["x", "patches"], "planes", strides=[2, 2])]
        nodes += [node("Slice", ["planes", f"from{at}", "end", "axes", "two"], f"corner{at}") for at in range(4)]
        nodes.append(node("Concat", [f"corner{at}" for at in range(4)], "merged", axis=1))
        nodes.append(node("Transpose", ["merged"], "rows", perm=[0, 2, 3, 1]))
        constants = {f"from{at}": list(corner) for at, corner in enumerate(corners)}
        constants |= {"end": [99, 99], "axes": [2, 3], "two": [2, 2]}
        fine = grid_of(places_of([*nodes, node("Identity", ["rows"], "y")], constants))
        assert fine is not None and fine.size == (4, 4) and fine.channels == CHANNELS
        value = RNG.normal(size=(1, 2, 2, 4 * CHANNELS))
        for at, (down, right) in enumerate(corners):
            part = value[0, :, :, at * CHANNELS : (at + 1) * CHANNELS].transpose(2, 0, 1)
            np.testing.assert_array_equal(fine.planes(value)[:, down::2, right::2], part)
        coarse = grid_of(places_of([*nodes, node("MatMul", ["rows", "merge"], "y")], constants))
        assert coarse is not None and coarse.size == (2, 2)

    def test_residual_connection_keeps_positions_lost_by_mixing(self) -> None:
        mixed = [*EMBEDDED, node("Transpose", ["tokens"], "turned", perm=[0, 2, 1])]
        mixed += [node("MatMul", ["turned", "over_tokens"], "all"), node("Transpose", ["all"], "back", perm=[0, 2, 1])]
        assert grid_of(places_of([*mixed, node("Relu", ["back"], "y")], FLAT)) is None
        grid = grid_of(places_of([*mixed, node("Add", ["back", "tokens"], "y")], FLAT))
        assert grid is not None and grid.size == (4, 4)

    def test_channel_attention_keeps_positions(self) -> None:
        """Channel attention as in XCiT: softmax over channels times the token values."""
        nodes = [*EMBEDDED, node("MatMul", ["flattened", "tokens"], "scores"), node("Softmax", ["scores"], "weights")]
        grid = grid_of(places_of([*nodes, node("MatMul", ["weights", "flattened"], "y")], FLAT))
        assert grid is not None and grid.size == (4, 4)

    def test_means_over_channels_keep_positions_but_global_means_do_not(self) -> None:
        """A mean over channels keeps positions; a mean over all positions has none."""
        nodes = [node("Conv", ["x", "patches"], "planes", strides=[2, 2])]
        over_channels = places_of([*nodes, node("ReduceMean", ["planes", "one"], "y")], {"one": [1]})
        assert over_channels.are_known and grid_of(over_channels) is not None
        gate = [*nodes, node("GlobalAveragePool", ["planes"], "mean"), node("Mul", ["mean", "planes"], "y")]
        assert not places_of([*nodes, node("GlobalAveragePool", ["planes"], "y")], {}).are_known
        grid = grid_of(places_of(gate, {}))
        assert grid is not None and grid.size == (4, 4)

    def test_convolution_restores_positions_after_an_unknown_operator(self) -> None:
        nodes = [
            node("Einsum", ["x"], "moved", equation="ncij->ncij"),
            node("Conv", ["moved", "patches"], "y", strides=[2, 2]),
        ]
        grid = grid_of(places_of(nodes, {}))
        assert grid is not None and grid.layout == SpatialLayout("NCHW", 4, 4)

    def test_col2im_restores_positions(self) -> None:
        """PyTorch's default exporter folds the patches of MobileViTV2 with Col2Im."""
        nodes = [
            *EMBEDDED[:1],
            node("Reshape", ["planes", "blocks"], "columns"),
            node("Col2Im", ["columns", "size", "block"], "y", strides=[2, 2]),
        ]
        grid = grid_of(places_of(nodes, {"blocks": [1, 4, 16], "size": [8, 8], "block": [2, 2]}))
        assert grid is not None and grid.layout == SpatialLayout("NCHW", 8, 8)

    def test_padding_has_no_position(self) -> None:
        nodes = [
            node("Conv", ["x", "patches"], "planes", strides=[2, 2]),
            node("Pad", ["planes", "pads"], "y"),
        ]
        found = places_of(nodes, {"pads": [0, 0, 1, 1, 0, 0, 0, 0]})
        assert np.isnan(found.rows[0, 0, 0]).all() and not np.isnan(found.rows[0, 0, 1:, 1:]).any()

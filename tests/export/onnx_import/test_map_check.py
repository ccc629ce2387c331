"""Checks before a file is written: wrong maps and outputs are rejected."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_toys import CLASSES, body, head, node, tensorflow_like, write

from kdedge.cli.from_onnx import print_explained
from kdedge.pipelines.onnx_explanation import explain_onnx
from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.graph_input import GraphInput
from kdedge_export.onnx_import import PixelInput, add_saliency, import_model, map_check, preprocessing
from kdedge_export.onnx_import.map_check import CONFIRMED
from kdedge_runtime.errors import KdedgeError

POSITIONS = 8


def dense_head(path: Path) -> Path:
    """Write a dense layer on all positions, whose gradient differs by position."""
    dense = np.random.default_rng(3).normal(size=(12 * POSITIONS * POSITIONS, CLASSES)).astype(np.float32)
    nodes = [*body(), node("Flatten", ["features"], "flat"), node("MatMul", ["flat", "dense"], "logits")]
    return write(path, nodes, {"dense": dense})


def tokens(path: Path) -> Path:
    """Write positions as tokens, averaged, as in transformers."""
    nodes = [
        *body(),
        node("Reshape", ["features", "shape"], "rows"),
        node("Transpose", ["rows"], "tokens", perm=[0, 2, 1]),
        node("MatMul", ["tokens", "mixing"], "mixed"),
        node("Tanh", ["mixed"], "lively"),
        node("ReduceMean", ["lively"], "flat", axes=[1], keepdims=0),
        node("Gemm", ["flat", "fc", "fc_bias"], "logits", transB=1),
    ]
    mixing = np.random.default_rng(4).normal(size=(12, 12)).astype(np.float32)
    return write(path, nodes, {"shape": np.array([0, 12, POSITIONS * POSITIONS]), "mixing": mixing})


FILES: dict[str, Callable[[Path], Path]] = {
    "pooled": lambda path: write(path, body() + head()),
    "channels last": tensorflow_like,
    "dense layer on all positions": dense_head,
    "tokens": tokens,
}


def negated(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    return [node("Neg", [name], "saliency_map")]


def transposed(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    return [node("Transpose", [name], "saliency_map", perm=[0, 2, 1])]


def shifted(model: onnx.ModelProto, name: str) -> list[onnx.NodeProto]:
    """Shift the rows by one, which preserves the map's sum."""
    order = onnx.numpy_helper.from_array(np.roll(np.arange(POSITIONS), 1), "order")
    model.graph.initializer.append(order)
    return [node("Gather", [name, "order"], "saliency_map", axis=1)]


def test_feature_changes_are_run_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dense layer of hundreds of megabytes is read once per run, not once per change."""
    sizes: list[int] = []

    class Counted(map_check.TensorProbe):
        def __call__(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            if map_check.DELTA in feed:
                sizes.append(len(feed[map_check.DELTA]))
            return super().__call__(feed)

    monkeypatch.setattr(map_check, "TensorProbe", Counted)
    add_saliency(dense_head(tmp_path / "theirs.onnx"), tmp_path / "ours.onnx")
    assert sizes[0] == 12 and 12 in sizes[1:]  # six directions, and six positions, in both signs
    assert len(sizes) <= 14  # at most one run per step


class TestMap:
    @pytest.mark.parametrize("method", ["gradcam", "reciprocam"])
    @pytest.mark.parametrize("change", [negated, transposed, shifted])
    @pytest.mark.parametrize("file", FILES)
    def test_wrong_map_is_rejected(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        file: str,
        change: Callable[[onnx.ModelProto, str], list[onnx.NodeProto]],
        method: str,
    ) -> None:
        """Gradient and outputs are correct; only the map is wrong."""
        write_nodes = NodeBuilder.write

        def write_and_change(builder: NodeBuilder, model: onnx.ModelProto) -> None:
            write_nodes(builder, model)
            for item in model.graph.node:
                if "saliency_map" in item.output:
                    item.output[:] = ["right"]
                    model.graph.node.extend(change(model, "right"))
                    return

        monkeypatch.setattr(NodeBuilder, "write", write_and_change)
        path = FILES[file](tmp_path / "theirs.onnx")
        with pytest.raises(KdedgeError, match="does not match the behavior of its logits"):
            add_saliency(path, tmp_path / "ours.onnx", method=method)
        assert not (tmp_path / "ours.onnx").exists()

    @pytest.mark.parametrize("file", FILES)
    def test_correct_map_is_confirmed(self, tmp_path: Path, file: str) -> None:
        done = add_saliency(FILES[file](tmp_path / "theirs.onnx"), tmp_path / "ours.onnx")
        assert done.map_error is not None and done.map_error <= CONFIRMED
        assert done.is_map_confirmed

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("pixels", [None, PixelInput((0.0,) * 3, (1.0,) * 3)])
    def test_map_of_constant_features_is_confirmed(self, tmp_path: Path, pixels: PixelInput | None) -> None:
        """Features that are zero have no standard deviation for step sizes, and zero maps have no correlation."""
        path = dense_head(tmp_path / "theirs.onnx")
        model = onnx.load(path)
        (makes,) = (item for item in model.graph.node if "features" in item.output)
        makes.output[:], makes.name = ["alive"], "alive"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
        at = list(model.graph.node).index(makes) + 1
        model.graph.node.insert(at, node("Mul", ["alive", "zero"], "features"))
        onnx.save_model(model, path)
        done = add_saliency(path, tmp_path / "ours.onnx", target="features", pixels=pixels)
        assert done.is_map_confirmed
        assert done.outputs.display.shift == (0.0, 0.0)

    @pytest.mark.parametrize(("error", "is_ticked"), [(CONFIRMED, True), (1.1 * CONFIRMED, False), (1e-2, False)])
    def test_only_a_confirmed_map_is_ticked(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: float, is_ticked: bool
    ) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        result = explain_onnx(path, output=tmp_path / "ours.onnx")
        print_explained(replace(result, file=replace(result.file, map_error=error)), path)
        printed = capsys.readouterr().err
        assert ("[✓] map" in printed) == is_ticked
        assert ("too coarse to confirm the map" in printed) != is_ticked
        assert f"relative error {error:.0e}" in printed


class TestOutputs:
    def test_changed_outputs_are_rejected(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The head is changed by 0.001 after its map was checked."""
        declare = import_model._declare

        def declare_and_change(model: onnx.ModelProto, *others: object) -> None:
            declare(model, *others)
            (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "fc_bias")
            values = onnx.numpy_helper.to_array(bias) + np.float32(1e-3) * np.arange(CLASSES, dtype=np.float32)
            bias.CopyFrom(onnx.numpy_helper.from_array(values, "fc_bias"))

        monkeypatch.setattr(import_model, "_declare", declare_and_change)
        path = write(tmp_path / "theirs.onnx", body() + head())
        with pytest.raises(KdedgeError, match="has different outputs"):
            add_saliency(path, tmp_path / "ours.onnx")
        assert not (tmp_path / "ours.onnx").exists()

    def test_wrong_preprocessing_is_rejected(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        right = preprocessing._front

        def exchanged(builder: NodeBuilder, port: GraphInput, pixels: PixelInput, *rest: Any) -> list[onnx.NodeProto]:
            return right(builder, port, PixelInput(pixels.std, pixels.mean), *rest)

        monkeypatch.setattr(preprocessing, "_front", exchanged)
        path = write(tmp_path / "theirs.onnx", body() + head())
        pixels = PixelInput((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
        with pytest.raises(KdedgeError, match="has different outputs"):
            add_saliency(path, tmp_path / "ours.onnx", pixels=pixels)
        assert not (tmp_path / "ours.onnx").exists()

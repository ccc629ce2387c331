"""Import of third-party files: files and options that are rejected."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_toys import CLASSES, SIDE, body, head, node, write

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_import import add_saliency
from kdedge_runtime.errors import ModelFileError, UsageError


class TestErrors:
    @pytest.mark.parametrize(
        ("content", "message"), [(None, "There is no model file"), (b"no protobuf", "is not an ONNX model")]
    )
    def test_missing_or_damaged_file_is_rejected(self, tmp_path: Path, content: bytes | None, message: str) -> None:
        if content is not None:
            (tmp_path / "theirs.onnx").write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            add_saliency(tmp_path / "theirs.onnx", tmp_path / "ours.onnx")

    def test_missing_file_has_a_suggestion(self, tmp_path: Path) -> None:
        (tmp_path / "theirs.onnx").touch()
        with pytest.raises(ModelFileError, match=r"Did you mean \S*theirs\.onnx\?"):
            add_saliency(tmp_path / "thiers.onnx", tmp_path / "ours.onnx")

    def test_output_must_differ_from_the_source(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        with pytest.raises(UsageError, match="would be overwritten"):
            add_saliency(path, path)

    def test_too_old_opset_is_rejected(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head(), opset=6, ir=3, lists_constants=True)
        with pytest.raises(ModelFileError, match="opset 6, but onnxruntime supports 7 and later"):
            add_saliency(path, tmp_path / "ours.onnx")

    def test_failed_opset_conversion_is_rejected(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message contains the converter's error; a changed output is rejected."""
        path = write(tmp_path / "theirs.onnx", body() + head(), opset=8)

        def fails(*_: object) -> onnx.ModelProto:
            raise RuntimeError("no adapter for Upsample")

        monkeypatch.setattr(onnx.version_converter, "convert_version", fails)
        with pytest.raises(ModelFileError, match=r"opset 8 and cannot be converted to 9: no adapter for Upsample"):
            add_saliency(path, tmp_path / "ours.onnx")

        def changes(given: onnx.ModelProto, _: int) -> onnx.ModelProto:
            model = onnx.ModelProto()
            model.CopyFrom(given)
            (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "fc_bias")
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias)[::-1].copy(), "fc_bias"))
            model.opset_import[0].version = 9
            return model

        monkeypatch.setattr(onnx.version_converter, "convert_version", changes)
        with pytest.raises(ModelFileError, match="its output logits changes when it is converted"):
            add_saliency(path, tmp_path / "ours.onnx")

    def test_two_inputs_are_rejected(self, tmp_path: Path) -> None:
        nodes = [*body(), *head(), node("Add", ["logits", "other"], "sum")]
        path = write(tmp_path / "theirs.onnx", nodes, output="sum")
        model = onnx.load(path)
        model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
        onnx.save_model(model, path)
        typed = re.escape('in Python: model.graph.initializer.append(onnx.numpy_helper.from_array(VALUE, "other")).')
        with pytest.raises(ModelFileError, match=rf"its inputs are x float32 .*, other float32 \[1\].*{typed}"):
            add_saliency(path, tmp_path / "ours.onnx")
        model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "other"))
        onnx.save_model(model, path)
        assert add_saliency(path, tmp_path / "ours.onnx").outputs.head == "GAP+Linear"

    def test_both_reasons_are_reported_if_no_method_works(self, tmp_path: Path) -> None:
        """Max-pooling over windows after the features, with a dynamic size."""
        nodes = [
            *body(),
            node("GlobalAveragePool", ["features"], "pooled"),
            node("Add", ["features", "pooled"], "moved"),
            node("MaxPool", ["moved"], "maxima", kernel_shape=[8, 4], strides=[8, 4]),
            node("ReduceMean", ["maxima"], "flat", axes=[2, 3], keepdims=0),
            node("Gemm", ["flat", "fc", "fc_bias"], "logits", transB=1),
        ]
        path = write(tmp_path / "theirs.onnx", nodes, shape=("N", 3, "height", "width"))
        message = "derivative of MaxPool over windows, which kdedge does not have. ReciproCAM needs a fixed map size"
        with pytest.raises(HeadNotSupported, match=message):
            add_saliency(path, tmp_path / "ours.onnx", side_px=SIDE)

    def test_output_without_classes_is_rejected(self, tmp_path: Path) -> None:
        values = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 12, 8, 8])]
        path = write(tmp_path / "theirs.onnx", body(), outputs=values)
        with pytest.raises(ModelFileError, match="is not a classifier"):
            add_saliency(path, tmp_path / "ours.onnx")

    def test_graph_without_spatial_features_is_rejected(self, tmp_path: Path) -> None:
        nodes = [node("Flatten", ["x"], "flat"), node("MatMul", ["flat", "dense"], "logits")]
        dense = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, CLASSES)).astype(np.float32)
        path = write(tmp_path / "theirs.onnx", nodes, {"dense": dense})
        with pytest.raises(HeadNotSupported, match=r"No spatial feature map of .* affects the logits"):
            add_saliency(path, tmp_path / "ours.onnx")

    def test_missing_target_is_rejected(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        with pytest.raises(HeadNotSupported, match=r"no tensor 'layer4'.*features"):
            add_saliency(path, tmp_path / "ours.onnx", target="layer4")

    def test_target_without_positions_is_rejected(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        with pytest.raises(HeadNotSupported, match=r"flat is float32 \[2, 12\]"):
            add_saliency(path, tmp_path / "ours.onnx", target="flat")

    def test_branches_in_the_tail_are_rejected(self, tmp_path: Path) -> None:
        def branch(name: str) -> onnx.GraphProto:
            value = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
            return helper.make_graph([node("Relu", ["pooled"], f"{name}_out")], name, [], [value])

        choice = numpy_helper.from_array(np.array(True), "choice")
        nodes = [
            *body(),
            node("GlobalAveragePool", ["features"], "pooled"),
            helper.make_node("Constant", [], ["choice"], value=choice),
            helper.make_node("If", ["choice"], ["chosen"], then_branch=branch("yes"), else_branch=branch("no")),
            node("Flatten", ["chosen"], "flat"),
            node("Gemm", ["flat", "fc", "fc_bias"], "logits", transB=1),
        ]
        path = write(tmp_path / "theirs.onnx", nodes)
        with pytest.raises(HeadNotSupported, match="branches or loops"):
            add_saliency(path, tmp_path / "ours.onnx")

    @pytest.mark.parametrize("name", ["saliency_map", "familiarity"])
    def test_unrelated_output_of_our_name_is_rejected(self, tmp_path: Path, name: str) -> None:
        values = [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 12, 8, 8]),
        ]
        nodes = [*body(), *head(), node("Identity", ["features"], name)]
        path = write(tmp_path / "theirs.onnx", nodes, outputs=values)
        with pytest.raises(ModelFileError, match=f"already has a tensor {name}"):
            add_saliency(path, tmp_path / "ours.onnx")

    def test_grad_cam_without_a_derivative_is_rejected(self, tmp_path: Path) -> None:
        nodes = [*body(), node("GlobalAveragePool", ["features"], "means"), node("CumSum", ["means", "axis"], "pooled")]
        path = write(tmp_path / "theirs.onnx", [*nodes, *head()[1:]], {"axis": np.array(1)})
        with pytest.raises(HeadNotSupported, match="derivative of CumSum"):
            add_saliency(path, tmp_path / "ours.onnx", method="gradcam")

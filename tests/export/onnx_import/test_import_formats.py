"""Import of third-party files: layouts, opsets, precisions and sizes."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from import_checks import assert_close, cam, pictures, predictions
from onnx import TensorProto, helper, numpy_helper
from onnx_toys import CLASSES, SIDE, body, head, node, tensorflow_like, weights, write

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_import import PixelInput, add_saliency
from kdedge_export.onnx_import.foreign_file import ForeignFile
from kdedge_runtime.errors import ModelFileError


class TestFileFormats:
    def test_channels_last_file_of_tensorflow_is_supported(self, tmp_path: Path) -> None:
        path = tensorflow_like(tmp_path / "theirs.onnx")
        done = add_saliency(path, tmp_path / "ours.onnx")
        feed = {"x": pictures(3, 0, last=True)}
        found = predictions(done.path, feed)
        held = weights()
        bias = np.random.default_rng(5).normal(size=16).astype(np.float32)
        x = torch.from_numpy(feed["x"]).permute(0, 3, 1, 2)
        features = torch.relu(torch.nn.functional.conv2d(x, *map(torch.from_numpy, (held["w"], held["b"])), stride=4))
        features.requires_grad_()
        hidden = features.mean((2, 3)) @ torch.from_numpy(held["one"]) + torch.from_numpy(bias)
        logits = torch.nn.functional.silu(hidden) @ torch.from_numpy(held["two"]) + torch.from_numpy(held["fc_bias"])
        top = logits.argmax(1)
        (slope,) = torch.autograd.grad(logits.gather(1, top[:, None]).sum(), features)
        expected = (slope.mean((2, 3), keepdim=True) * features).sum(1).detach().numpy()
        assert found["explained_class"].tolist() == top.tolist()
        assert_close(found["probabilities"], torch.softmax(logits, 1).detach().numpy())
        assert_close(found["saliency_map"], expected)

    @pytest.mark.parametrize(("opset", "ir", "lists"), [(9, 3, True), (11, 6, False), (13, 7, True), (18, 8, False)])
    def test_old_and_new_opsets_are_supported(self, tmp_path: Path, opset: int, ir: int, lists: bool) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head(), opset=opset, ir=ir, lists_constants=lists)
        done = add_saliency(path, tmp_path / "ours.onnx")
        feed = {"x": pictures(2, 1)}
        found = predictions(done.path, feed)
        assert_close(found["saliency_map"], cam(done.path, feed, weights()["fc"]))
        assert predictions(done.path, feed | {"class_index": np.array([7])})["explained_class"].tolist() == [7, 7]

    def test_constant_nodes_are_supported(self, tmp_path: Path) -> None:
        held = weights()
        made = [
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(held[name])) for name in ("fc", "w")
        ]
        path = write(tmp_path / "theirs.onnx", [*made, *body(), *head()])
        feed = {"x": pictures(2, 1)}
        done = add_saliency(path, tmp_path / "ours.onnx")
        assert_close(predictions(done.path, feed)["saliency_map"], cam(done.path, feed, held["fc"]))

    def test_external_weights_are_embedded(self, tmp_path: Path) -> None:
        saving = {"save_as_external_data": True, "location": "theirs.data", "size_threshold": 0}
        path = write(tmp_path / "theirs.onnx", body() + head(), **saving)
        assert (tmp_path / "theirs.data").is_file()
        done = add_saliency(path, tmp_path / "elsewhere" / "ours.onnx")
        feed = {"x": pictures(2, 1)}
        assert_close(predictions(done.path, feed)["saliency_map"], cam(done.path, feed, weights()["fc"]))
        runnable = add_saliency(path, tmp_path / "runnable.onnx", pixels=PixelInput((0.5,) * 3, (0.5,) * 3))
        content = path.read_bytes() + (tmp_path / "theirs.data").read_bytes()
        assert runnable.metadata is not None and runnable.metadata.lineage is not None
        assert runnable.metadata.lineage["file"]["sha256"] == hashlib.sha256(content).hexdigest()
        (tmp_path / "theirs.data").unlink()
        with pytest.raises(ModelFileError, match=r"theirs\.data, which is not in the same folder"):
            add_saliency(path, tmp_path / "ours.onnx")

    def test_file_is_parsed_and_hashed_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        parsed, load = [], onnx.load
        monkeypatch.setattr(onnx, "load", lambda source, **options: parsed.append(source) or load(source, **options))
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=PixelInput((0.5,) * 3, (0.5,) * 3))
        assert parsed.count(path) == 1
        file = ForeignFile.open(path)
        assert done.metadata is not None and done.metadata.lineage is not None
        assert done.metadata.lineage["file"]["sha256"] == file.sha256
        path.write_bytes(b"another file")
        assert done.metadata.lineage["file"]["sha256"] == file.sha256

    def test_half_precision_is_supported(self, tmp_path: Path) -> None:
        halves = {name: value.astype(np.float16) for name, value in weights().items()}
        path = write(tmp_path / "theirs.onnx", body() + head(), halves, dtype=TensorProto.FLOAT16)
        done = add_saliency(path, tmp_path / "ours.onnx")
        feed = {"x": pictures(2, 1).astype(np.float16)}
        found = predictions(done.path, feed)
        assert found["saliency_map"].dtype == np.float32
        expected = cam(done.path, feed, weights()["fc"]).astype(np.float32)
        assert_close(found["saliency_map"], expected, 1e-2)

    def test_quantized_file_uses_its_dequantized_features(self, tmp_path: Path) -> None:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Images(CalibrationDataReader):
            def __init__(self) -> None:
                self.rest = iter([{"x": pictures(4, seed)} for seed in range(4)])

            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(self.rest, None)

        path = write(tmp_path / "theirs.onnx", body() + head())
        quantized = tmp_path / "int8.onnx"
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(path, quantized, Images(), quant_format=QuantFormat.QDQ, per_channel=True, **kinds)
        done = add_saliency(quantized, tmp_path / "ours.onnx")
        assert done.outputs.method == "hirescam"
        assert {"QuantizeLinear", "DequantizeLinear"} <= {item.op_type for item in onnx.load(quantized).graph.node}
        feed = {"x": pictures(3, 9)}
        whole = add_saliency(path, tmp_path / "float.onnx")
        same = predictions(done.path, feed)["saliency_map"]
        assert np.array_equal(predictions(done.path, feed)["logits"], predictions(quantized, feed)["logits"])
        top = predictions(done.path, feed)["explained_class"]
        expected = np.stack(
            [
                predictions(whole.path, feed | {"class_index": np.array([k])})["saliency_map"][i]
                for i, k in enumerate(top)
            ]
        )
        assert_close(same, expected, 0.05)

    def test_dynamic_size_is_supported(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head(), shape=("N", 3, "H", "W"))
        done = add_saliency(path, tmp_path / "ours.onnx", side_px=SIDE)
        assert done.outputs.map_height is None
        for side in (32, 48):
            feed = {"x": np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32)}
            assert_close(predictions(done.path, feed)["saliency_map"], cam(done.path, feed, weights()["fc"]))

    def test_logits_and_probabilities_count_as_one_output(self, tmp_path: Path) -> None:
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", CLASSES]) for n in ("p", "logits")]
        path = write(tmp_path / "theirs.onnx", [*body(), *head(), node("Softmax", ["logits"], "p")], outputs=values)
        done = add_saliency(path, tmp_path / "ours.onnx")
        feed = {"x": pictures(2, 1)}
        assert_close(predictions(done.path, feed)["saliency_map"], cam(done.path, feed, weights()["fc"]))


class TestOldOpsets:
    @pytest.mark.parametrize("matrix", ["in x out", "out x in"])
    @pytest.mark.parametrize(("opset", "ir"), [(7, 3), (8, 3), (9, 4), (10, 5), (11, 6), (13, 7)])
    def test_two_dense_layers_are_supported(self, tmp_path: Path, opset: int, ir: int, matrix: str) -> None:
        """Old converters export VGG as Flatten, Gemm, Relu, Gemm."""
        held, turned = weights(), matrix == "out x in"
        dense = {"three": np.random.default_rng(3).normal(size=(12 * 64, 16)).astype(np.float32)}
        last = {"four": held["two"].T.copy() if turned else held["two"]}
        zero = {"hidden_bias": np.full(16, 0.1, np.float32)}
        nodes = [
            *body(),
            node("Flatten", ["features"], "flat"),
            node("Gemm", ["flat", "three", "hidden_bias"], "hidden"),
            node("Relu", ["hidden"], "lively"),
            node("Gemm", ["lively", "four", "fc_bias"], "logits", transB=int(turned)),
        ]
        constants = dense | last | zero
        path = write(tmp_path / "theirs.onnx", nodes, constants, opset=opset, ir=ir, lists_constants=True)
        done = add_saliency(path, tmp_path / "ours.onnx")
        assert done.outputs.method == "hirescam" and done.is_map_confirmed
        x = pictures(3, 0)
        found = predictions(done.path, {"x": x})
        assert_close(found["logits"], predictions(path, {"x": x})["logits"], 1e-6)
        features = torch.relu(
            torch.nn.functional.conv2d(
                torch.from_numpy(x), torch.from_numpy(held["w"]), torch.from_numpy(held["b"]), stride=4
            )
        ).requires_grad_()
        hidden = torch.relu(features.flatten(1) @ torch.from_numpy(dense["three"]) + 0.1)
        logits = hidden @ torch.from_numpy(held["two"]) + torch.from_numpy(held["fc_bias"])
        top = torch.from_numpy(found["explained_class"])
        (slope,) = torch.autograd.grad(logits.gather(1, top[:, None]).sum(), features)
        expected = (slope * features).sum(1).detach().numpy()
        assert_close(found["saliency_map"], expected, 1e-4)

    def test_graph_that_fails_with_its_map_names_the_cause(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from kdedge_export.onnx_graph.autodiff import reverse_mode

        monkeypatch.setitem(reverse_mode._RULES, "Relu", lambda s: {s.node.input[0]: s.builder.add("Missing", s.grad)})
        nodes = [*body(), *head()[:2], node("Relu", ["flat"], "lively")]
        nodes += [node("Gemm", ["lively", "fc", "fc_bias"], "logits", transB=1)]
        path = write(tmp_path / "theirs.onnx", nodes)
        with pytest.raises(HeadNotSupported, match=r"with its hirescam map does not run: .*Missing"):
            add_saliency(path, tmp_path / "ours.onnx")

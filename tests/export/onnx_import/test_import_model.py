"""Import of third-party files: what is kept, which formats are supported, and which errors are raised."""

import hashlib
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_toys import CLASSES, SIDE, body, head, node, tensorflow_like, weights, write

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.graph_index import TensorProbe
from kdedge_export.onnx_import import PixelInput, add_saliency, read_labels
from kdedge_runtime import Model
from kdedge_runtime.diagnostics.reference_frames import ReferenceFrames
from kdedge_runtime.errors import KdedgeError, ModelFileError, UsageError

HALF = PixelInput((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def pictures(n: int, seed: int, *, last: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(n, 3, 4, 4)).repeat(8, 2).repeat(8, 3) + 0.3 * rng.normal(size=(n, 3, SIDE, SIDE))
    return np.ascontiguousarray(coarse.transpose(0, 2, 3, 1) if last else coarse).astype(np.float32)


def predictions(path: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options)
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def cam(path: Path, feed: dict[str, np.ndarray], classifier: np.ndarray) -> np.ndarray:
    """Compute CAM (Zhou et al., CVPR 2016) over the number of positions, from the file's features `[N, C, h, w]`."""
    model = onnx.load(path)
    model.graph.output.append(onnx.ValueInfoProto(name="features"))
    session = ort.InferenceSession(model.SerializeToString())
    features, top = session.run(["features", "explained_class"], feed)
    return np.einsum("nk,nkhw->nhw", classifier[top], features) / np.prod(features.shape[2:])


def assert_close(measured: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert measured.shape == expected.shape
    assert np.abs(measured - expected).max() <= tolerance * np.abs(expected).max()


class TestKeptContent:
    def test_inputs_and_outputs_are_kept_and_the_map_is_appended(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        done = add_saliency(path, tmp_path / "ours.onnx")
        session = ort.InferenceSession(done.path)
        assert [item.name for item in session.get_inputs()] == ["x"]
        assert [item.name for item in session.get_overridable_initializers()] == ["class_index"]
        assert [item.name for item in session.get_outputs()] == ["logits", "saliency_map", "explained_class"]
        assert session.get_outputs()[1].shape == ["N", 8, 8]
        for n in (1, 4):
            feed = {"x": pictures(n, n)}
            ours = predictions(done.path, feed)
            assert np.array_equal(ours["logits"], predictions(path, feed)["logits"])
            assert_close(ours["saliency_map"], cam(done.path, feed, weights()["fc"]))

    def test_metadata_is_kept(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        model = onnx.load(path)
        helper.set_model_props(model, {"author": "somebody"})
        onnx.save_model(model, path)
        done = add_saliency(path, tmp_path / "ours.onnx")
        props = {item.key: item.value for item in onnx.load(done.path).metadata_props}
        assert props["author"] == "somebody"
        assert json.loads(props["kdedge.outputs"]) == {
            "method": "hirescam",
            "target_layer": "features",
            "head": "GAP+Linear",
            "map_height": 8,
            "map_width": 8,
            "display": {"shift_x": 0.0, "shift_y": 0.0, "typical_contrast": None},
        }

    @pytest.mark.parametrize("pixels", [None, HALF], ids=["map only", "with preprocessing"])
    def test_importing_again_is_idempotent(self, tmp_path: Path, pixels: PixelInput | None) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        first = add_saliency(path, tmp_path / "first.onnx", pixels=pixels)
        second = add_saliency(first.path, tmp_path / "second.onnx")
        assert second.was_explained and not first.was_explained
        assert second.outputs == first.outputs
        assert second.path.read_bytes() == first.path.read_bytes()

    @pytest.mark.parametrize("pixels", [None, HALF], ids=["map only", "with preprocessing"])
    @pytest.mark.parametrize("stated", ["nonsense", "[]", "{}", '{"method": 1}', '{"method": "x", "target_layer": []}'])
    def test_damaged_map_metadata_is_rejected(self, tmp_path: Path, stated: str, pixels: PixelInput | None) -> None:
        done = add_saliency(write(tmp_path / "theirs.onnx", body() + head()), tmp_path / "explained.onnx")
        model = onnx.load(done.path)
        helper.set_model_props(model, {"kdedge.outputs": stated})
        onnx.save(model, done.path)
        with pytest.raises(ModelFileError, match="damaged"):
            add_saliency(done.path, tmp_path / "again.onnx", pixels=pixels)
        assert not (tmp_path / "again.onnx").exists()

    def test_preprocessing_can_be_added_later(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        explained = add_saliency(path, tmp_path / "explained.onnx")
        later = add_saliency(explained.path, tmp_path / "later.onnx", pixels=HALF)
        at_once = add_saliency(path, tmp_path / "at once.onnx", pixels=HALF)
        images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
        one, two = (Model.load(done.path).predict(images) for done in (later, at_once))
        assert np.array_equal(one.saliency_map, two.saliency_map)

    @pytest.mark.parametrize("later", [False, True], ids=["in one step", "in two steps"])
    @pytest.mark.parametrize("is_open", [False, True], ids=["fixed size", "dynamic size"])
    def test_imported_file_passes_its_self_test(self, tmp_path: Path, is_open: bool, later: bool) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        side_px = None
        if is_open:
            model, side_px = onnx.load(path), SIDE
            for axis, name in ((2, "height"), (3, "width")):
                model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
            onnx.save_model(model, path)
        if later:
            path = add_saliency(path, tmp_path / "explained.onnx", side_px=side_px).path
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF, side_px=side_px)
        model = Model.load(done.path)
        golden = ReferenceFrames.of(model)
        found_outputs = model.predict(golden.samples)
        assert golden.saliency_map is not None and golden.saliency_map.shape[1:] == (8, 8)
        assert_close(found_outputs.logits, golden.logits)
        assert_close(found_outputs.saliency_map, golden.saliency_map)

    def test_failed_check_writes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from kdedge_export.onnx_graph.autodiff import reverse_mode

        monkeypatch.setitem(reverse_mode._RULES, "Gemm", lambda step: {step.node.input[0]: step.node.input[0]})
        path = write(tmp_path / "theirs.onnx", body() + head())
        with pytest.raises(KdedgeError, match="does not match the behavior of its logits"):
            add_saliency(path, tmp_path / "ours.onnx")
        assert sorted(item.name for item in tmp_path.iterdir()) == ["theirs.onnx"]


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


class TestPreprocessing:
    """A file with mean and std can be run by `kdedge run`."""

    @pytest.mark.parametrize("bgr", [False, True], ids=["RGB", "BGR"])
    @pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
    def test_pixels_are_normalized_as_in_training(self, tmp_path: Path, last: bool, bgr: bool) -> None:
        theirs = tmp_path / "theirs.onnx"
        path = tensorflow_like(theirs) if last else write(theirs, body() + head())
        pixels = PixelInput((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), bgr)
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=pixels)
        model = Model.load(done.path)
        images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
        x = ((images / 255 - pixels.mean) / pixels.std).astype(np.float32)
        x = x[..., ::-1] if bgr else x
        feed = {"x": np.ascontiguousarray(x if last else x.transpose(0, 3, 1, 2))}
        own = "probabilities" if last else "logits"
        assert_close(predictions(done.path, {"image": images})[own], predictions(path, feed)[own], 1e-4)
        plain = add_saliency(path, tmp_path / "plain.onnx")
        explanation = model.predict(images)
        assert_close(explanation.saliency_map, predictions(plain.path, feed)["saliency_map"], 1e-4)
        assert explanation.scores.shape == (3, CLASSES)

    def test_metadata_describes_the_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        labels = tuple(f"kind {index}" for index in range(CLASSES))
        metadata = Model.load(add_saliency(path, tmp_path / "ours.onnx", pixels=HALF, labels=labels).path).metadata
        assert metadata.labels == labels
        assert (metadata.input.height, metadata.input.width, metadata.input.mean) == (SIDE, SIDE, HALF.mean)
        assert metadata.outputs.method == "hirescam"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert metadata.lineage == {"file": {"name": "theirs.onnx", "sha256": digest}}

    def test_labels_are_read_from_the_metadata(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        model = onnx.load(path)
        names = {index: f"kind {index}" for index in range(CLASSES)}
        helper.set_model_props(model, {"names": str(names)})
        onnx.save_model(model, path)
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF)
        assert done.metadata.labels == tuple(names.values()) and not done.labels_are_numbers

    def test_labels_with_one_name_per_line_are_read(self, tmp_path: Path) -> None:
        """RapidOCR's files use this format."""
        path = write(tmp_path / "theirs.onnx", body() + head())
        model = onnx.load(path)
        helper.set_model_props(model, {"character": "\n".join(f"kind {index}" for index in range(CLASSES))})
        onnx.save_model(model, path)
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF)
        assert done.metadata.labels == tuple(f"kind {index}" for index in range(CLASSES))

    def test_classes_without_names_are_numbered(self, tmp_path: Path) -> None:
        done = add_saliency(write(tmp_path / "theirs.onnx", body() + head()), tmp_path / "o.onnx", pixels=HALF)
        assert done.labels_are_numbers and done.metadata.labels[3] == "3"

    def test_wrong_number_of_labels_is_rejected(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        with pytest.raises(UsageError, match=r"3 labels .* has 10 classes"):
            add_saliency(path, tmp_path / "ours.onnx", pixels=HALF, labels=("a", "b", "c"))

    def test_input_named_image_is_supported(self, tmp_path: Path) -> None:
        nodes = [node("Identity", ["x"], "image"), *body("image"), *head()]
        done = add_saliency(write(tmp_path / "theirs.onnx", nodes), tmp_path / "ours.onnx", pixels=HALF)
        images = np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8)
        assert Model.load(done.path).predict(images).saliency_map.shape == (1, 8, 8)

    def test_dynamic_size_must_be_given(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head(), shape=("N", 3, "H", "W"))
        with pytest.raises(UsageError, match="--size"):
            add_saliency(path, tmp_path / "ours.onnx", pixels=HALF)
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF, side_px=48)
        images = np.zeros((2, 48, 48, 3), dtype=np.uint8)
        assert Model.load(done.path).predict(images).saliency_map.shape == (2, 12, 12)

    def test_raw_pixel_input_needs_no_preprocessing(self, tmp_path: Path) -> None:
        nodes = [
            node("Cast", ["x"], "pixels", to=TensorProto.FLOAT),
            node("Transpose", ["pixels"], "first", perm=[0, 3, 1, 2]),
            *body("first"),
            *head(),
        ]
        path = write(tmp_path / "theirs.onnx", nodes, shape=("N", SIDE, SIDE, 3))
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
        onnx.save_model(model, path)
        done = add_saliency(path, tmp_path / "ours.onnx")
        images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
        found = Model.load(done.path).predict(images)
        assert_close(found.saliency_map, cam(done.path, {"x": images}, weights()["fc"]))
        with pytest.raises(UsageError, match="normalizes them itself"):
            add_saliency(path, tmp_path / "again.onnx", pixels=HALF)


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


class TestErrors:
    @pytest.mark.parametrize(
        ("content", "message"), [(None, "There is no model file"), (b"no protobuf", "is not an ONNX model")]
    )
    def test_missing_or_damaged_file_is_rejected(self, tmp_path: Path, content: bytes | None, message: str) -> None:
        if content is not None:
            (tmp_path / "theirs.onnx").write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            add_saliency(tmp_path / "theirs.onnx", tmp_path / "ours.onnx")

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
        with pytest.raises(HeadNotSupported, match="no spatial features that are followed by weights"):
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

    def test_unrelated_saliency_map_output_is_rejected(self, tmp_path: Path) -> None:
        values = [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info("saliency_map", TensorProto.FLOAT, ["N", 12, 8, 8]),
        ]
        nodes = [*body(), *head(), node("Identity", ["features"], "saliency_map")]
        path = write(tmp_path / "theirs.onnx", nodes, outputs=values)
        with pytest.raises(ModelFileError, match="already has a tensor saliency_map"):
            add_saliency(path, tmp_path / "ours.onnx")

    def test_grad_cam_without_a_derivative_is_rejected(self, tmp_path: Path) -> None:
        nodes = [*body(), node("GlobalAveragePool", ["features"], "means"), node("CumSum", ["means", "axis"], "pooled")]
        path = write(tmp_path / "theirs.onnx", [*nodes, *head()[1:]], {"axis": np.array(1)})
        with pytest.raises(HeadNotSupported, match="derivative of CumSum"):
            add_saliency(path, tmp_path / "ours.onnx", method="gradcam")


class TestLabels:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("names.txt", "cat\ndog \n\n"),
            ("names.json", '["cat", "dog"]'),
            ("names.json", '{"0": "cat", "1": "dog"}'),
            ("names.json", '{"1": ["n02", "dog"], "0": ["n01", "cat"]}'),
            ("class_indices.json", '{"dog": 1, "cat": 0}'),
            ("names.txt", "0: cat\n1: dog\n"),
            ("names.txt", "1: dog\n0: cat\n"),
            ("names.csv", "0,cat\n1,dog\n"),
            ("names.txt", "0\tcat\n1\tdog\n"),
        ],
    )
    def test_supported_formats_are_read(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        assert read_labels(tmp_path / name) == ("cat", "dog")

    @pytest.mark.parametrize("text", ["7: cat\n8: dog\n", "0: cat\ndog\n", "0: cat\n0: dog\n"])
    def test_numbers_other_than_class_indices_belong_to_the_names(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "names.txt").write_text(text)
        assert read_labels(tmp_path / "names.txt") == tuple(text.split("\n")[:2])

    @pytest.mark.parametrize(
        ("name", "text"),
        [("a.txt", "\n"), ("a.json", "{}"), ("a.json", "["), ("a.json", "[1]"), ("a.json", '{"cat": 0, "dog": 2}')],
    )
    def test_file_without_names_is_rejected(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=r"a\.(txt|json)"):
            read_labels(tmp_path / name)


@pytest.mark.parametrize("later", [False, True], ids=["in one step", "in two steps"])
def test_display_of_the_maps_is_measured(tmp_path: Path, later: bool) -> None:
    """Three strided convolutions with odd kernels and padding displace by half a position minus a sixteenth."""
    path, rng = tmp_path / "theirs.onnx", np.random.default_rng(0)
    bump, sizes = np.outer([1, 2, 1], [1, 2, 1]) / 16, (3, 8, 8, 8)
    nodes, constants, last = [], {"fc": rng.normal(size=(8, 4))}, "x"
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        constants[f"kernel{number}"] = rng.normal(size=(outputs, inputs, 1, 1)) * bump
        nodes.append(
            helper.make_node("Conv", [last, f"kernel{number}"], [f"conv{number}"], strides=[2, 2], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]))
        last = f"relu{number}"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc"], ["logits"]),
    ]
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", ["N", 3, 64, 64]), ("logits", ["N", 4]))
    ]
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    opset = [helper.make_opsetid("", 17)]
    onnx.save_model(helper.make_model(helper.make_graph(nodes, "net", *ports, stored), opset_imports=opset), path)
    if later:
        path = add_saliency(path, tmp_path / "explained.onnx").path
    done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF)
    display = Model.load(done.path).metadata.outputs.display
    assert display.shift == pytest.approx((-0.5 + 1 / 16,) * 2, abs=0.12)
    assert display.typical_contrast is not None and display.typical_contrast > 0
    assert done.outputs.display == display and done.metadata is not None and done.metadata.outputs == done.outputs


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


def test_import_needs_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "theirs.onnx", body() + head())
    program = (
        "import sys; sys.modules['torch'] = None\n"
        f"sys.argv = ['kdedge', 'export', '--from-onnx', {str(path)!r}, '--mean', '0.5', '--std', '1/255']\n"
        "from kdedge.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert Model.load(tmp_path / "theirs.explained.onnx").has_map

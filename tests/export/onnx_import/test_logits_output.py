"""Other outputs and inputs: a sigmoid, several heads, grayscale, and resizing modes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx_toys import CHANNELS, SIDE, body, head, node, tensorflow_body, weights, write
from PIL import Image

from kdedge.pipelines import model_inspection
from kdedge_export.onnx_import import Geometry, PixelInput, add_saliency
from kdedge_runtime import Model
from kdedge_runtime.errors import ModelFileError, UsageError

HALF = PixelInput((0.5,) * 3, (0.5,) * 3)
RAW = PixelInput((0.0,) * 3, (1 / 255,) * 3)
ROW = np.random.default_rng(1).normal(size=(CHANNELS, 1)).astype(np.float32)
BIAS = np.array([0.3], np.float32)


def run(path: Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(path)
    names = [item.name for item in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def color(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def keras_binary(path: Path, end: str = "Sigmoid") -> Path:
    """Write a binary classifier as tf2onnx does: channels last, mean, MatMul and Add to one value, sigmoid."""
    nodes = [
        *tensorflow_body(),
        node("MatMul", ["pooled", "row"], "product"),
        node("Add", ["product", "bias"], "dense"),
        node(end, ["dense"], "probability"),
    ]
    value = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 1])
    shape = ("N", SIDE, SIDE, 3)
    return write(path, nodes, {"row": ROW / 2000, "bias": BIAS}, outputs=[value], shape=shape, opset=13)


class TestOneSigmoid:
    def test_probabilities_and_maps_are_those_of_two_classes(self, tmp_path: Path) -> None:
        path = keras_binary(tmp_path / "theirs.onnx")
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=RAW, labels=("cat", "dog"))
        assert done.is_map_confirmed
        model, images = Model.load(done.path), color(3)
        expected = run(path, {"x": images.astype(np.float32)})["probability"][:, 0]
        assert expected.min() > 0.01 and expected.max() < 0.99
        found = run(done.path, {"image": images})
        two = np.exp(found["logits"])
        np.testing.assert_allclose((two / two.sum(1, keepdims=True))[:, 1], expected, rtol=1e-5)
        np.testing.assert_allclose(found["probability"][:, 0], expected, rtol=1e-5)
        assert found["explained_class"].tolist() == (expected > 0.5).astype(int).tolist()
        maps = [model.predict(images, index).saliency_map for index in (0, 1)]
        assert np.abs(maps[1]).max() > 0
        np.testing.assert_allclose(maps[0], -maps[1], rtol=1e-6)
        features = _probed(path, "features", {"x": images.astype(np.float32)})
        cam = (features @ ROW / 2000)[..., 0] / 2 / np.prod(features.shape[1:3])  # half of the logit's
        np.testing.assert_allclose(maps[1], cam, atol=1e-5 * np.abs(cam).max())

    def test_preprocessing_can_be_added_later(self, tmp_path: Path) -> None:
        path = keras_binary(tmp_path / "theirs.onnx")
        first = add_saliency(path, tmp_path / "first.onnx")
        later = add_saliency(first.path, tmp_path / "later.onnx", pixels=RAW)
        at_once = add_saliency(path, tmp_path / "at once.onnx", pixels=RAW)
        images = color(2)
        one, two = (Model.load(done.path).predict(images) for done in (later, at_once))
        np.testing.assert_array_equal(one.saliency_map, two.saliency_map)
        np.testing.assert_array_equal(one.logits, two.logits)
        assert len(at_once.metadata.labels) == 2

    def test_single_value_without_a_sigmoid_is_rejected(self, tmp_path: Path) -> None:
        path = keras_binary(tmp_path / "theirs.onnx", end="Relu")
        with pytest.raises(ModelFileError, match=r"\[2, 1\] after a Sigmoid"):
            add_saliency(path, tmp_path / "ours.onnx")


def two_heads(path: Path) -> Path:
    """Write two softmax heads, as paddle2onnx does for GoogLeNet, and a sigmoid head."""
    nodes = [
        *body(),
        *head(),
        node("Identity", ["logits"], "own"),
        node("Gemm", ["flat", "turned", "fc_bias"], "more", transB=1),
        node("MatMul", ["flat", "row"], "product"),
        node("Sigmoid", ["product"], "single"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None]) for name in ("own", "more", "single")]
    return write(path, nodes, {"row": ROW, "turned": weights()["fc"][::-1].copy()}, outputs=values)


class TestHeads:
    def test_one_of_several_heads_must_be_named(self, tmp_path: Path) -> None:
        path = two_heads(tmp_path / "theirs.onnx")
        with pytest.raises(ModelFileError, match=r"several heads: .* Choose one of own, more: .* --head own\."):
            add_saliency(path, tmp_path / "ours.onnx")
        with pytest.raises(UsageError, match=r"no classification head 'less'. Its heads are: own, more, single\."):
            add_saliency(path, tmp_path / "ours.onnx", head="less")

    @pytest.mark.parametrize("name", ["own", "more", "single"])
    def test_named_head_is_explained(self, tmp_path: Path, name: str) -> None:
        path = two_heads(tmp_path / "theirs.onnx")
        done = add_saliency(path, tmp_path / "ours.onnx", head=name, pixels=HALF)
        found = run(done.path, {"image": color(4)})
        assert {"own", "more", "single"} <= found.keys()
        if name == "single":
            np.testing.assert_allclose(np.diff(found["logits"])[:, 0], _logit(found["single"])[:, 0], rtol=1e-3)
        else:
            np.testing.assert_array_equal(found["logits"], found[name])
        assert found["explained_class"].tolist() == found["logits"].argmax(1).tolist()
        classifier = {"own": weights()["fc"], "more": weights()["fc"][::-1], "single": np.hstack([-ROW, ROW]).T / 2}
        features = _probed(done.path, "features", {"image": color(4)})
        expected = np.einsum("nk,nkhw->nhw", classifier[name][found["explained_class"]], features) / 64
        np.testing.assert_allclose(found["saliency_map"], expected, atol=1e-5 * np.abs(expected).max())


def test_inner_tensor_named_logits_is_supported(tmp_path: Path) -> None:
    """A convolution that replaces a dense layer is exported this way."""
    kernel = weights()["fc"][:, :, None, None]
    nodes = [*body(), node("GlobalAveragePool", ["features"], "pooled"), node("Conv", ["pooled", "kernel"], "logits")]
    nodes.append(node("Flatten", ["logits"], "scores"))
    path = write(tmp_path / "theirs.onnx", nodes, {"kernel": kernel}, output="scores")
    done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF)
    found = run(done.path, {"image": color(2)})
    assert found["logits"].shape == (2, 10)
    np.testing.assert_array_equal(found["logits"], found["scores"])


def detector(path: Path, kind: str) -> Path:
    """Write a detector with the given kind of output."""
    nodes = [*body(), node("Reshape", ["features", "shape"], "boxes" if kind == "a name" else "found")]
    positions = {"many rows": [0, 6, 128], "many columns": [0, 128, 6]}.get(kind, [0, 24, 32])
    if kind == "suppression":
        nodes = [
            *body(),
            node("Reshape", ["features", "shape"], "rows"),
            node("Slice", ["rows", "zero", "four", "two"], "corners"),
            node("Slice", ["rows", "zero", "one", "two"], "column"),
            node("Transpose", ["column"], "scores", perm=[0, 2, 1]),
            helper.make_node("NonMaxSuppression", ["corners", "scores"], ["found"], name="the found"),
        ]
    constants = {"shape": np.array(positions), "zero": np.array([0]), "one": np.array([1]), "two": np.array([2])}
    constants["four"] = np.array([4])
    type_of = TensorProto.INT64 if kind == "suppression" else TensorProto.FLOAT
    value = helper.make_tensor_value_info("boxes" if kind == "a name" else "found", type_of, None)
    write(path, nodes, constants, outputs=[value])
    if kind == "metadata":
        model = onnx.load(path)
        helper.set_model_props(model, {"task": "detect", "names": "{0: 'person'}"})
        onnx.save_model(model, path)
    return path


class TestDetectors:
    @pytest.mark.parametrize("kind", ["many rows", "many columns", "metadata", "a name", "suppression"])
    def test_detectors_are_rejected_by_name(self, tmp_path: Path, kind: str) -> None:
        path = detector(tmp_path / "yolo.onnx", kind)
        with pytest.raises(ModelFileError, match="is a detector"):
            add_saliency(path, tmp_path / "ours.onnx")
        with pytest.raises(ModelFileError, match="is a detector"):
            add_saliency(path, tmp_path / "ours.onnx", head="found")

    def test_tokens_are_not_mistaken_for_boxes(self, tmp_path: Path) -> None:
        path = detector(tmp_path / "encoder.onnx", "tokens")
        with pytest.raises(ModelFileError, match="is not a classifier"):
            add_saliency(path, tmp_path / "ours.onnx")

    @pytest.mark.parametrize("kind", ["many rows", "tokens"])
    def test_inspection_rejects_detectors_before_timing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        steps: list[str] = []
        monkeypatch.setattr(model_inspection, "time_layers", lambda *_: pytest.fail("timed"))
        with pytest.raises(ModelFileError, match="is a detector" if kind == "many rows" else "is not a classifier"):
            model_inspection.inspect_model(
                str(detector(tmp_path / "theirs.onnx", kind)), progress=lambda step, *_: steps.append(step)
            )
        assert steps == []


class TestGrayscale:
    @pytest.mark.parametrize("is_last", [False, True], ids=["channels first", "channels last"])
    def test_color_images_are_converted_to_grayscale_in_the_graph(self, tmp_path: Path, is_last: bool) -> None:
        kernel = weights()["w"][:, :1].copy()
        turn = [node("Transpose", ["x"], "x_first", perm=[0, 3, 1, 2])] if is_last else []
        nodes = [*turn, *body("x_first" if is_last else "x"), *head()]
        shape = ("N", SIDE, SIDE, 1) if is_last else ("N", 1, SIDE, SIDE)
        path = write(tmp_path / "theirs.onnx", nodes, {"w": kernel}, shape=shape)
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF)
        images = color(2)
        luma = images @ np.array([0.299, 0.587, 0.114])
        x = ((luma / 255 - 0.5) / 0.5).astype(np.float32)[..., None]
        expected = run(path, {"x": x if is_last else x.transpose(0, 3, 1, 2)})["logits"]
        model = Model.load(done.path)
        np.testing.assert_allclose(model.predict(images).logits, expected, atol=1e-4)
        gray = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, 1).reshape(1, SIDE, SIDE, 1)
        of_gray = (gray / 255 - 0.5) / 0.5  # a repeated channel is unchanged
        expected = run(path, {"x": (of_gray if is_last else of_gray.transpose(0, 3, 1, 2)).astype(np.float32)})[
            "logits"
        ]
        np.testing.assert_allclose(model.predict(gray.repeat(3, 3)).logits, expected, atol=1e-4)

    @pytest.mark.parametrize(
        "pixels", [PixelInput((0.5, 0.4, 0.3), (0.5,) * 3), PixelInput((0.5,) * 3, (0.5,) * 3, True)]
    )
    def test_per_channel_values_are_rejected(self, tmp_path: Path, pixels: PixelInput) -> None:
        shape = ("N", 1, SIDE, SIDE)
        path = write(tmp_path / "theirs.onnx", [*body(), *head()], {"w": weights()["w"][:, :1].copy()}, shape=shape)
        with pytest.raises(UsageError, match="grayscale images, which have one channel"):
            add_saliency(path, tmp_path / "ours.onnx", pixels=pixels)

    def test_dynamic_channel_axis_is_supported(self, tmp_path: Path) -> None:
        constants = {"w": weights()["w"][:, :1].copy()}
        path = write(tmp_path / "theirs.onnx", [*body(), *head()], constants, shape=("N", None, SIDE, SIDE))
        assert add_saliency(path, tmp_path / "ours.onnx", pixels=HALF).is_map_confirmed


class TestPreprocessing:
    """Operations without effect are omitted, and no constant broadcasts three values at a time."""

    def test_raw_pixels_are_only_cast(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        assert _front_of(add_saliency(path, tmp_path / "ours.onnx", pixels=RAW).path) == ["Transpose", "Cast"]

    def test_initial_transpose_is_applied_to_bytes(self, tmp_path: Path) -> None:
        path = keras_binary(tmp_path / "theirs.onnx")
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=RAW)
        assert _front_of(done.path) == ["Transpose", "Cast"]
        first = onnx.load(done.path).graph.node[:4]
        assert [item.op_type for item in first] == ["Transpose", "Cast", "Identity", "Conv"]
        images = color(2)
        expected = run(path, {"x": images.astype(np.float32)})["probability"]
        np.testing.assert_allclose(run(done.path, {"image": images})["probability"], expected, rtol=1e-6)

    @pytest.mark.parametrize("bgr", [False, True])
    def test_channels_last_constants_are_tiled_over_a_row(self, tmp_path: Path, bgr: bool) -> None:
        nodes = [node("Relu", ["x"], "positive"), node("Transpose", ["positive"], "x_first", perm=[0, 3, 1, 2])]
        path = write(tmp_path / "theirs.onnx", [*nodes, *body("x_first"), *head()], shape=("N", SIDE, SIDE, 3))
        pixels = PixelInput((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), bgr)
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=pixels)
        assert _front_of(done.path) == [*(["Gather"] if bgr else []), "Cast", "Sub", "Mul"]
        graph = onnx.load(done.path).graph
        taken = {item.input[1] for item in graph.node if item.op_type in ("Sub", "Mul")}
        assert [list(item.dims) for item in graph.initializer if item.name in taken] == [[SIDE, 3]] * 2

    def test_equal_channel_values_become_a_scalar(self, tmp_path: Path) -> None:
        done = add_saliency(write(tmp_path / "theirs.onnx", body() + head()), tmp_path / "ours.onnx", pixels=HALF)
        assert _front_of(done.path) == ["Transpose", "Cast", "Sub", "Mul"]
        graph = onnx.load(done.path).graph
        taken = {item.input[1] for item in graph.node if item.op_type in ("Sub", "Mul")}
        assert [list(item.dims) for item in graph.initializer if item.name in taken] == [[], []]


class TestGeometry:
    @pytest.mark.parametrize(
        "geometry", [Geometry(), Geometry("squash"), Geometry("letterbox"), Geometry("crop", 0.875)], ids=str
    )
    def test_geometry_is_stored_in_the_file(self, tmp_path: Path, geometry: Geometry) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF, geometry=geometry)
        spec = Model.load(done.path).metadata.input
        assert (spec.resize, spec.crop_fraction) == (geometry.resize, geometry.crop_fraction)
        picture = np.asarray(Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 20).convert("RGB"))
        assert spec.preprocess(picture).shape == (SIDE, SIDE, 3)


def _front_of(path: Path) -> list[str]:
    """Return the operators before the graph's own."""
    nodes = onnx.load(path).graph.node
    return [item.op_type for item in nodes[: next(at for at, item in enumerate(nodes) if "/" not in item.name)]]


def _probed(path: Path, tensor: str, feed: dict[str, np.ndarray]) -> np.ndarray:
    model = onnx.load(path)
    model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return np.asarray(ort.InferenceSession(model.SerializeToString()).run([tensor], feed)[0])


def _logit(probability: np.ndarray) -> np.ndarray:
    return np.log(probability / (1 - probability))

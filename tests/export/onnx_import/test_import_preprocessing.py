"""Import of third-party files: preprocessing and labels."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from import_checks import HALF, assert_close, cam, predictions
from onnx import TensorProto, helper
from onnx_toys import CLASSES, SIDE, body, head, node, tensorflow_like, weights, write

from kdedge_export.onnx_import import PixelInput, add_saliency, read_labels
from kdedge_runtime import Model
from kdedge_runtime.errors import UsageError


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

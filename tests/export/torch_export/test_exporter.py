"""Test that exported models match PyTorch for any batch and class, and contain no local paths."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torchvision
from map_checks import Draw
from small_nets import (
    CLASSES,
    NETS,
    POSITIONS,
    SIDE,
    SPEC,
    TAILS,
    Export,
    HeadNet,
    hires_cam,
    inputs,
    randomised,
    relative_error,
)
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as T

from kdedge_export.errors import HeadNotSupported
from kdedge_export.modalities.normalization import Normalize
from kdedge_export.saliency import AutogradHead, CAMExplainer
from kdedge_export.torch_export import ExportableModel, export_graph, save_model, wrap_for_export
from kdedge_runtime import Metadata, Model
from kdedge_runtime.diagnostics.reference_frames import ReferenceFrames, mean_error
from kdedge_runtime.metadata import Outputs
from kdedge_runtime.modalities.image import ImageInput

TOLERANCE = 1e-4
"""Tolerance of maps relative to their largest value: ONNX Runtime sums float32 in a different order than PyTorch."""
Exports = Callable[[str], Export]


@pytest.fixture(scope="module", params=[*NETS, *TAILS])
def explained(request: pytest.FixtureRequest, export: Exports) -> Export:
    return export(request.param)


@pytest.fixture(scope="module")
def linear(export: Exports) -> Export:
    return export("linear")


@pytest.fixture(scope="module")
def plain(export: Exports) -> Export:
    return export("plain")


def by_autograd(module: ExportableModel, images: np.ndarray, classes: np.ndarray) -> Tensor:
    """Return Grad-CAM maps of the wrapped model for images normalized with NumPy."""
    scaled = (images / 255.0 - SPEC.mean) / SPEC.std
    x = torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))
    explained = module.explained
    assert isinstance(explained, CAMExplainer)
    layer, classes = explained.model.get_submodule(explained.head.target_layer), torch.from_numpy(classes)
    if isinstance(explained.head, AutogradHead):
        return hires_cam(explained.model, layer, x, classes, planes=explained.head.layout.channels_first)
    return hires_cam(explained.model, layer, x, classes, of_input=explained.head.takes_input)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("pinned", [None, 7])
def test_onnxruntime_matches_pytorch(explained: Export, pictures: Draw, n: int, pinned: int | None) -> None:
    predictions = []
    for seed in (1, 2):
        images = pictures(n, seed)
        prediction = explained.model.predict(images, pinned)
        predictions.append(prediction)
        with torch.no_grad():
            logits, maps, classes = explained.module(
                torch.from_numpy(images), torch.tensor([-1 if pinned is None else pinned])
            )
        np.testing.assert_allclose(prediction.logits, logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
        np.testing.assert_array_equal(prediction.explained_class, classes)
        expected_classes = prediction.logits.argmax(axis=1) if pinned is None else np.full(n, pinned)
        np.testing.assert_array_equal(prediction.explained_class, expected_classes)
        measured = torch.from_numpy(prediction.saliency_map)
        assert relative_error(measured, maps) <= TOLERANCE
        assert relative_error(measured, by_autograd(explained.module, images, prediction.explained_class)) <= TOLERANCE
    first, second = predictions
    assert np.abs(first.logits - second.logits).max() > 1e-2, "the logits do not depend on the image"
    assert np.abs(first.saliency_map - second.saliency_map).max() > 0.1 * np.abs(first.saliency_map).max()


def test_map_is_class_specific(explained: Export, pictures: Draw) -> None:
    images = pictures(2, 3)
    maps = [explained.model.predict(images, index).saliency_map for index in range(CLASSES)]
    for index in range(1, CLASSES):
        assert np.abs(maps[index] - maps[0]).max() > 1e-2 * np.abs(maps[0]).max()


def test_batch_matches_single_images(linear: Export, pictures: Draw) -> None:
    images = pictures(5, 4)
    whole = linear.model.predict(images)
    for index in range(5):
        alone = linear.model.predict(images[index : index + 1])
        np.testing.assert_allclose(alone.logits[0], whole.logits[index], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(alone.saliency_map[0], whole.saliency_map[index], rtol=1e-5, atol=1e-6)


def test_inputs_and_outputs_of_the_file(linear: Export) -> None:
    session = ort.InferenceSession(linear.model.path.read_bytes())
    given = {item.name: (item.type, item.shape) for item in session.get_inputs()}
    assert given.keys() == {"image"} or given["class_index"] == ("tensor(int64)", [1])
    kind, (batch, *rest) = given["image"]
    assert (kind, rest) == ("tensor(uint8)", [SIDE, SIDE, 3])
    assert isinstance(batch, str), "the batch size is fixed"
    assert [(item.name, item.type, item.shape) for item in session.get_outputs()] == [
        ("logits", "tensor(float)", [batch, CLASSES]),
        ("saliency_map", "tensor(float)", [batch, POSITIONS, POSITIONS]),
        ("explained_class", "tensor(int64)", [batch]),
    ]


def test_class_index_is_optional(linear: Export, pictures: Draw) -> None:
    session = ort.InferenceSession(linear.model.path.read_bytes())
    image = pictures(3, 5)
    free = session.run(None, {"image": image})
    top = session.run(None, {"image": image, "class_index": np.array([-1])})
    for left_out, requested in zip(free, top, strict=True):
        np.testing.assert_array_equal(left_out, requested)
    np.testing.assert_array_equal(free[2], free[0].argmax(axis=1))


def test_file_is_valid_and_self_contained(explained: Export) -> None:
    path = explained.model.path
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    assert not list(path.parent.glob(f"{path.name}?*")), "weights are stored outside the file"
    assert {opset.domain for opset in model.opset_import} == {""}
    assert not model.functions


def test_file_contains_no_local_paths(explained: Export, own_paths: tuple[bytes, ...]) -> None:
    content = explained.model.path.read_bytes()
    for place in own_paths:
        assert place not in content
    assert not re.search(rb"\.py\b|torch|Traceback|site-packages", content)
    model = onnx.load_from_string(content)
    assert model.producer_name == "kdedge"
    assert all(entry.key.startswith("kdedge.") for entry in model.metadata_props)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_metadata_is_preserved(linear: Export, plain: Export) -> None:
    assert replace(linear.model.metadata, reference_frames=None) == linear.metadata
    assert linear.model.metadata.outputs == Outputs("hirescam", "features", "GAP+Linear", POSITIONS, POSITIONS)
    assert linear.model.metadata.lineage == {"student": "Grüße"}
    assert plain.model.metadata.outputs == Outputs("none")


def test_file_contains_passing_reference_frames(linear: Export, plain: Export) -> None:
    for export in (linear, plain):
        reference = ReferenceFrames.of(export.model)
        found_outputs = export.model.predict(reference.samples, None)
        assert mean_error(found_outputs.logits, reference.logits) < 1e-4
    assert (
        ReferenceFrames.of(linear.model).saliency_map is not None
        and ReferenceFrames.of(plain.model).saliency_map is None
    )


def test_no_method_gives_only_logits(plain: Export, linear: Export, pictures: Draw) -> None:
    session = ort.InferenceSession(plain.model.path.read_bytes())
    assert [item.name for item in session.get_inputs()] == ["image"]
    assert [item.name for item in session.get_outputs()] == ["logits"]
    assert not plain.model.has_map
    images = pictures(3, 6)
    prediction = plain.model.predict(images)
    assert prediction.saliency_map is None
    np.testing.assert_allclose(prediction.logits, linear.model.predict(images).logits, rtol=1e-5, atol=1e-5)
    onnx.checker.check_model(onnx.load(plain.model.path), full_check=True)


@pytest.mark.parametrize("name", NETS)
def test_head_nodes_follow_the_activations(export: Exports, name: str) -> None:
    explained = export(name)
    nodes = {node.name: node for node in explained.graph.model.graph.node}
    assert len(nodes) == len(explained.graph.model.graph.node), "two nodes share a name"
    head = {nodes[name].op_type for name in explained.graph.head_nodes}
    assert {"ReduceMean", "Gemm", "ArgMax", "Gather", "MatMul"} <= head
    assert "Conv" not in head
    assert [output.name for output in explained.graph.model.graph.output] == [
        "logits",
        "saliency_map",
        "explained_class",
    ]


@pytest.mark.parametrize("name", TAILS)
def test_autograd_head_keeps_only_last_layer_and_map_in_fp32(export: Exports, name: str) -> None:
    graph = export(name).graph
    nodes = {node.name: node for node in graph.model.graph.node}
    body = nodes.keys() - graph.head_nodes
    needed = {"logits"}
    for node in reversed(graph.model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    assert all(needed.intersection(nodes[each].output) for each in body), "a part of the map would be quantized"
    assert sum(nodes[each].op_type == "Conv" for each in body) >= 1
    assert any("logits" in nodes[each].output for each in graph.head_nodes)
    if name == "flattens":
        assert sum(nodes[each].op_type == "Gemm" for each in body) == 1, "the first dense layer has most of the weights"


def test_map_adds_no_convolution(linear: Export, plain: Export) -> None:
    def convolutions(model: onnx.ModelProto) -> int:
        return sum(node.op_type == "Conv" for node in model.graph.node)

    assert convolutions(linear.graph.model) == convolutions(plain.graph.model) == 2


def test_saving_leaves_the_graph_unchanged(linear: Export, tmp_path: Path) -> None:
    before = linear.graph.model.SerializeToString()
    save_model(linear.graph.model, linear.metadata, tmp_path / "again.onnx")
    assert linear.graph.model.SerializeToString() == before
    assert (tmp_path / "again.onnx").read_bytes() == linear.model.path.read_bytes()


def test_saving_is_atomic(linear: Export, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the one before")
    broken = onnx.ModelProto()
    broken.CopyFrom(linear.graph.model)
    broken.graph.node[0].input[0] = "nowhere"
    with pytest.raises(onnx.checker.ValidationError):
        save_model(broken, linear.metadata, path)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_normalization_matches_torchvision() -> None:
    spec = ImageInput(4, 5, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    image = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = T.normalize(image.permute(0, 3, 1, 2) / 255, list(spec.mean), list(spec.std))
    torch.testing.assert_close(Normalize(spec)(image), expected)


def test_deploy_rejects_a_head_without_a_map() -> None:
    with pytest.raises(HeadNotSupported, match="none of its layers has spatial activations"):
        wrap_for_export(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4)), SPEC)


def test_class_per_image(linear: Export, pictures: Draw) -> None:
    images, classes = torch.from_numpy(pictures(3, 7)), torch.tensor([4, -1, 0])
    logits, maps, explained = linear.module(images, classes)
    assert explained.tolist() == [4, int(logits[1].argmax()), 0]
    for index, chosen in enumerate(explained):
        alone = linear.module(images[index : index + 1], chosen[None])[1]
        torch.testing.assert_close(maps[index], alone[0], rtol=1e-5, atol=1e-6)


def test_images_of_another_size_are_resampled() -> None:
    module = wrap_for_export(randomised(HeadNet()), SPEC)
    image = torch.randint(0, 256, (2, 2 * SIDE, 2 * SIDE, 3), dtype=torch.uint8)
    logits, maps, _ = module(image, torch.tensor([-1]))
    resampled = nn.functional.interpolate(module.front_end(image), (SIDE, SIDE), mode="bilinear", antialias=True)
    torch.testing.assert_close(logits, module.explained.model(resampled))
    assert maps.shape == (2, POSITIONS, POSITIONS)


@pytest.mark.models  # its components are those of `hard swish` above
def test_mobilenet_v3_from_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ImageInput(128, 128, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    network = randomised(torchvision.models.mobilenet_v3_small(weights=None, num_classes=CLASSES))
    module = wrap_for_export(network, spec)
    labels = tuple(map(str, range(CLASSES)))
    save_model(export_graph(module).model, Metadata(labels, spec, module.outputs), tmp_path / "v3.onnx")
    model = Model.load(tmp_path / "v3.onnx", threads=1)
    for seed in (1, 2):
        image = ((inputs(2, seed, 128) * 0.2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        prediction = model.predict(image.numpy())
        logits, maps, _ = module(image, torch.tensor([-1]))
        np.testing.assert_allclose(prediction.logits, logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
        assert relative_error(torch.from_numpy(prediction.saliency_map), maps) <= 1e-4

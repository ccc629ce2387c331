"""fp16 files: agreement with fp32 on real inputs, parts that stay in float32, and overflow."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from small_nets import CHANNELS, CLASSES, NETS, SPEC, TAILS, Export, HeadNet, class_token, randomised
from torch import nn

from kdedge_export.file_quantization import quantize
from kdedge_export.modalities.image import ImageExport
from kdedge_export.onnx_graph.head_nodes import last_layer_and_map
from kdedge_export.quantization import FidelityGoal
from kdedge_export.quantization.half_precision import _converted
from kdedge_export.torch_export import ClassifierOnly, export_graph, save_model, wrap_for_export
from kdedge_runtime import Metadata, Model
from kdedge_runtime.errors import ModelFileError, UsageError

Draw = Callable[[int, int], np.ndarray]
Names = Callable[[str], Export]


def exported(net: nn.Module, path: Path, method: str = "hirescam") -> Path:
    module = wrap_for_export(net, SPEC, method)
    labels = tuple(f"class {index}" for index in range(CLASSES))
    save_model(export_graph(module).model, Metadata(labels, SPEC, module.outputs), path)
    return path


def half(path: Path) -> Model:
    written = quantize(path, precision="fp16").path
    assert written == path.with_name(f"{path.stem}.fp16.onnx")
    return Model.load(written, threads=1)


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return found | {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
    }


def errors(fp32: Model, fp16: Model, images: np.ndarray, picked: int | None) -> tuple[float, float]:
    """Return the largest errors of logits and maps, relative to their ranges."""
    exact, rounded = fp32.predict(images, picked), fp16.predict(images, picked)
    np.testing.assert_array_equal(exact.explained_class, rounded.explained_class)
    assert exact.saliency_map is not None and rounded.saliency_map is not None
    assert rounded.logits.dtype == rounded.saliency_map.dtype == np.float32
    pairs = ((exact.logits, rounded.logits), (exact.saliency_map, rounded.saliency_map))
    logits, maps = (float(np.abs(one - other).max() / np.ptp(one)) for one, other in pairs)
    return logits, maps


@pytest.mark.parametrize("name", [*NETS, *TAILS])
def test_predictions_and_maps_match_fp32_on_different_inputs(
    name: str, export: Names, pictures: Draw, tmp_path: Path
) -> None:
    fp32 = export(name).model
    path = tmp_path / "model.onnx"
    path.write_bytes(fp32.path.read_bytes())
    fp16 = half(path)
    for images in (pictures(1, 1), pictures(1, 2), pictures(5, 3)):
        for picked in (None, 0, CLASSES - 1):
            logits, maps = errors(fp32, fp16, images, picked)
            # 2^-11 per rounding; sums of a few layers.
            assert 0 < logits < 0.01 and maps < 0.05, (picked, logits, maps)
    first, second = (fp16.predict(pictures(1, seed)) for seed in (1, 2))
    assert np.abs(first.logits - second.logits).max() > 0.01, "the logits are a constant"
    assert fp16.metadata.precision == "fp16" and fp16.arithmetic is None
    assert (fp16.metadata.labels, fp16.metadata.outputs) == (fp32.metadata.labels, fp32.metadata.outputs)
    assert (
        fp16.metadata.reference_frames is not None and fp16.metadata.reference_frames != fp32.metadata.reference_frames
    )


def test_graph_with_a_fixed_batch_of_one_is_converted(export: Names, pictures: Draw, tmp_path: Path) -> None:
    model = onnx.load(export("linear").model.path)
    for value in (*model.graph.input, *model.graph.output):
        if value.name != "class_index":
            value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    fp16 = half(path)
    for seed in (1, 2):
        logits, maps = errors(Model.load(path, threads=1), fp16, pictures(1, seed), None)
        assert 0 < logits < 0.01 and maps < 0.05


@pytest.mark.parametrize(
    ("net", "method"),
    [
        (NETS["linear"], "gradcam++"),
        (NETS["linear"], "eigencam"),
        (NETS["swish"], "smoothgrad"),
        (class_token, "gradient-attention"),
        (class_token, "attention-rollout"),
    ],
)
def test_maps_of_every_kind_of_method_match_fp32(
    net: Callable[[], nn.Module], method: str, tmp_path: Path, pictures: Draw
) -> None:
    torch.manual_seed(0)
    path = exported(randomised(net()), tmp_path / "model.onnx", method)
    fp32, fp16 = Model.load(path, threads=1), half(path)
    for seed in (1, 2):
        exact, rounded = (model.predict(pictures(2, seed), 1).saliency_map for model in (fp32, fp16))
        assert exact is not None and rounded is not None and np.ptp(exact) > 0
        assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.99


def test_body_is_float16_and_last_layer_and_map_are_float32(export: Names, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(export("linear").model.path.read_bytes())
    model = onnx.load(half(path).path)
    kinds = types(model)
    heads = last_layer_and_map(export("linear").graph.model.graph, "logits")
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions and {kinds[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}
    assert {kinds[name] for node in convolutions for name in node.input} == {TensorProto.FLOAT16}
    floats = [node for node in model.graph.node if node.name in heads]
    assert floats and TensorProto.FLOAT16 not in {
        kinds[name] for node in floats for name in (*node.input, *node.output)
    }
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    # Pixels to float16, features to float32 for mean and map, mean to float16 and back: one cast each, or per reader.
    assert 4 <= len(casts) <= 6
    assert {value.name: kinds[value.name] for value in model.graph.output} == {
        "logits": TensorProto.FLOAT,
        "saliency_map": TensorProto.FLOAT,
        "explained_class": TensorProto.INT64,
    }


def test_float32_nodes_exchange_float32_values() -> None:
    """The converter alone rounds between nodes that stay in float32, where 70,000 overflows."""
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["body"], "body"),
        helper.make_node("Mul", ["body", "large"], ["between"], "first"),
        helper.make_node("Add", ["between", "small"], ["logits"], "second"),
    ]
    values = {"one": [1.0], "large": [70_000.0], "small": [1e-3]}
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.float32(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    done = _converted(model, {"first", "second"})
    onnx.checker.check_model(done, full_check=True)
    kinds = types(done)
    assert kinds["body"] == TensorProto.FLOAT16 and kinds["logits"] == TensorProto.FLOAT
    feeds = {"x": np.float32([1, 2])}
    (found,) = onnx.reference.ReferenceEvaluator(done).run(None, feeds)
    np.testing.assert_array_equal(found, np.float32([1, 2]) * np.float32(70_000) + np.float32(1e-3))


class Overflows(HeadNet):
    """Convolutions between which the activations reach the given size, and then return to normal."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.large = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        self.back = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        self.size = size

    def scale(self) -> "Overflows":
        eye = torch.eye(CHANNELS)[:, :, None, None]
        self.large.weight.data, self.back.weight.data = eye * self.size, eye / self.size
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.back(self.large(self.features(x)).relu()).relu()
        return self.head(features.mean((2, 3)))


@pytest.mark.parametrize(("size", "kept"), [(10.0, False), (60_000.0, True), (1e6, True)])
def test_layers_whose_values_overflow_stay_in_float32(size: float, kept: bool, tmp_path: Path, pictures: Draw) -> None:
    torch.manual_seed(0)
    net = Overflows(size)
    path = exported(randomised(net).scale(), tmp_path / "model.onnx")  # type: ignore[operator]
    fp16 = half(path)
    note = fp16.metadata.quantization
    assert note is not None and bool(note["float_layers"]) is kept
    weights = {value.data_type for value in onnx.load(fp16.path).graph.initializer if len(value.dims) == 4}
    assert TensorProto.FLOAT16 in weights
    logits, maps = errors(Model.load(path, threads=1), fp16, pictures(4, 1), None)
    assert logits < 0.01 and maps < 0.05


class Bright(HeadNet):
    """Network with a value that exceeds float16 on bright images only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        excess = (nn.functional.avg_pool2d(x, SPEC.height) - 1).relu() * 3e4
        return self.head((self.features(x) + excess.mean(1, keepdim=True) / 3e4).mean((2, 3)))


@pytest.mark.parametrize("source", ["none", "calibration", "modality"])
def test_largest_values_are_measured_on_calibration_and_random_samples(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    path = exported(randomised(Bright()), tmp_path / "model.onnx")
    bright = np.full((4, *SPEC.shape), 250, np.uint8)
    if source == "modality":
        monkeypatch.setattr(ImageExport, "random_samples", lambda *_: bright)
    note = quantize(path, bright if source == "calibration" else None, precision="fp16").note
    assert bool(note["float_layers"]) is (source != "none")
    assert (note["calibration_samples"] > 0) is (source == "calibration")


def test_network_without_a_layer_that_fits_is_an_error(tmp_path: Path) -> None:
    class Huge(HeadNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * 1e7) * 1e-7

    torch.manual_seed(0)
    path = exported(randomised(Huge()), tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match=r"No layer can be converted to fp16: the values of [1-9]\d* nodes exceed"):
        quantize(path, precision="fp16")
    assert not (tmp_path / "model.fp16.onnx").exists()


def test_network_with_only_a_last_layer_is_an_error(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ClassifierOnly(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES)), SPEC)
    path = tmp_path / "model.onnx"
    labels = tuple(map(str, range(CLASSES)))
    save_model(export_graph(module).model, Metadata(labels, SPEC, module.outputs), path)
    with pytest.raises(ModelFileError, match="there is none before the last layer"):
        quantize(path, precision="fp16")


def test_large_last_layer_is_stored_in_half_the_size(tmp_path: Path, pictures: Draw) -> None:
    class Wide(HeadNet):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Linear(CHANNELS, 1024), nn.ReLU(), nn.Linear(1024, CLASSES * 20))

    torch.manual_seed(0)
    net = randomised(Wide())
    module = wrap_for_export(net, SPEC, "hirescam")
    path = tmp_path / "model.onnx"
    labels = tuple(map(str, range(CLASSES * 20)))
    save_model(export_graph(module).model, Metadata(labels, SPEC, module.outputs), path)
    fp16 = half(path)
    assert fp16.path.stat().st_size < 0.6 * path.stat().st_size
    logits, maps = errors(Model.load(path, threads=1), fp16, pictures(4, 1), 3)
    assert logits < 0.01 and maps < 0.05


def test_conversion_is_reproducible_except_for_its_latency(export: Names, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(export("linear").model.path.read_bytes())
    one, other = (onnx.load(half(path).path).graph for _ in range(2))
    assert one == other


def test_goal_and_unknown_precision_are_rejected(export: Names, tmp_path: Path, pictures: Draw) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(export("linear").model.path.read_bytes())
    rejected: Collection[tuple[dict[str, object], str]] = (
        ({"precision": "fp16", "goal": FidelityGoal(max_drop=1.0)}, "has no layers to choose for a goal"),
        ({"precision": "int8"}, "needs calibration samples"),
        ({"precision": "int8", "calibration": pictures(2, 1)}, "at least 3"),
        ({"precision": "fp32"}, "no recipe for the precision 'fp32'"),
        ({"precision": "int3"}, "no precision 'int3'"),
    )
    for options, message in rejected:
        with pytest.raises(UsageError, match=message):
            quantize(path, **options)  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    fp16 = quantize(path, precision="fp16").path
    assert fp16 is not None
    with pytest.raises(ModelFileError, match="already quantized"):
        quantize(fp16, precision="fp16")

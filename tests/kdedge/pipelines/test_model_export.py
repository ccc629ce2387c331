"""Export of runs and named models: files match PyTorch and have complete metadata."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from training_toys import CLASSES, SIDE

from kdedge.cli.export_summary import check_goal_reached
from kdedge.data import decode, index_dataset
from kdedge.models.artifacts import Artifacts
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import BEST, read_run, write_run
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.pipelines import model_export as workflow
from kdedge.pipelines.calibration_samples import calibration_samples
from kdedge.pipelines.model_export import export_model
from kdedge.reports.tradeoff import tradeoff_table
from kdedge.reports.tradeoff_chart import image_path, write_image
from kdedge_export import verified_export
from kdedge_export.errors import HeadNotSupported
from kdedge_export.export_check import TOLERANCE
from kdedge_export.metrics.map_similarity import map_pearson
from kdedge_export.quantization import FidelityGoal
from kdedge_export.torch_export import ExportableModel, ExportedGraph, export_graph, wrap_for_export
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import KdedgeError, UsageError, ValidationFailed
from kdedge_runtime.metadata import Outputs
from kdedge_runtime.modalities.image import ImageInput

GENERIC = load_profile("generic")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of `small:resnet8` for three classes, not from a run."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet8.safetensors"
    save_file(build_model(ModelSpec("small:resnet8", 3), SIDE).state_dict(), path)
    return path


def largest_weight(path: Path) -> int:
    """Return the largest absolute value of all quantized convolution kernels."""
    kernels = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    return max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels)


def test_exported_run_matches_pytorch(exported_run: Path, scenes: Path) -> None:
    model = Model.load(exported_run / "model.onnx")
    trained = load_trained(str(exported_run))
    network, spec = trained.model.eval(), trained.input
    images = decode(index_dataset(scenes).val, spec).samples
    features: list[torch.Tensor] = []
    handle = network.get_submodule(model.metadata.outputs.target_layer).register_forward_hook(
        lambda _module, _args, output: features.append(output)
    )
    x = torch.from_numpy((images / 255.0 - spec.mean) / spec.std).permute(0, 3, 1, 2).float()
    logits = network(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.max(dim=1).values.sum(), features[0])
    maps = (gradient.mean(dim=(2, 3), keepdim=True) * features[0]).sum(dim=1).detach().numpy()
    prediction = model.predict(images)
    logits = logits.detach()
    np.testing.assert_allclose(prediction.logits, logits, atol=1e-4 * float(logits.abs().max()))
    np.testing.assert_allclose(prediction.saliency_map, maps, atol=1e-4 * float(np.abs(maps).max()))


def test_lineage_has_all_teachers_of_an_ensemble(exported_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(exported_run, tmp_path / "student")
    hashes = {"wide": "a" * 64, "deep": "b" * 64}
    members = [{"source": f"/somewhere/{name}", "weights": None, "weights_sha256": hashes[name]} for name in hashes]
    sources = {"source": "/somewhere/wide + /somewhere/deep", "weights": None, "weights_sha256": None}
    write_run(run, replace(read_run(run), teacher=sources | {"members": members}))
    exported = export_model(str(run), profile=GENERIC)
    assert exported.metadata.lineage["teacher"] == {"name": "wide + deep", "weights_sha256": None}


def test_lineage_of_an_exported_run(exported_run: Path, teacher_run: Path, scenes: Path) -> None:
    metadata, record = Model.load(exported_run / "model.onnx").metadata, read_run(exported_run)
    assert metadata.labels == tuple(sorted(CLASSES))
    assert metadata.input == record.input
    display = metadata.outputs.display
    assert metadata.outputs == Outputs("hirescam", "layer3", "GAP+Linear", 8, 8, display)
    assert display.typical_contrast is not None and display.typical_contrast > 0
    assert metadata.quantization is None
    best = exported_run / BEST
    assert metadata.lineage["student"] == {
        "source": exported_run.name,
        "weights": BEST,
        "weights_sha256": hashlib.sha256(best.read_bytes()).hexdigest(),
    }
    taught_by = hashlib.sha256((teacher_run / BEST).read_bytes()).hexdigest()
    assert metadata.lineage["teacher"] == {"name": teacher_run.name, "weights_sha256": taught_by}
    assert metadata.lineage["data"]["name"] == scenes.name
    assert metadata.lineage["data"]["fingerprint"] == index_dataset(scenes).fingerprint
    assert metadata.lineage["model"]["name"] == "small:resnet8"
    assert record.result is not None
    assert metadata.metrics["val_top1"] == round(record.result["best"]["val_top1"], 6)
    assert metadata.metrics["epoch"] == record.result["best"]["epoch"]
    assert str(exported_run.parent).encode() not in (exported_run / "model.onnx").read_bytes(), "paths are not exported"


def test_int8_metadata_differs_only_in_quantization(exported_run: Path, scenes: Path) -> None:
    fp32, int8 = (Model.load(exported_run / name) for name in ("model.onnx", "model.int8.onnx"))
    note = int8.metadata.quantization
    assert note is not None
    images = decode(index_dataset(scenes).train, int8.metadata.input).samples
    calibrated = images[np.arange(len(images)) % 3 != 2]  # choices are made on the rest
    sha256 = hashlib.sha256(calibrated.tobytes()).hexdigest()
    assert note["calibration_sha256"] == sha256, "calibrated on other images"
    assert (note["calibration_samples"], note["reduce_range"], note["device"]) == (len(calibrated), True, "generic")
    held_out = note["held_out"]
    assert held_out["samples"] == len(images) - len(calibrated) and held_out["accuracy"] is not None, "labels are known"
    measured_on = f"the PyTorch model, {len(index_dataset(scenes).val)} validation samples"
    assert int8.metadata.metrics == fp32.metadata.metrics and int8.metadata.metrics["measured_on"] == measured_on
    assert int8.metadata.lineage == fp32.metadata.lineage
    assert int8.metadata.outputs == fp32.metadata.outputs
    assert int8.path.stat().st_size < 0.6 * fp32.path.stat().st_size
    exact, coarse = fp32.predict(images, 1), int8.predict(images, 1)
    assert np.median(map_pearson(exact.saliency_map, coarse.saliency_map)) >= 0.98
    assert not np.array_equal(exact.logits, coarse.logits)


def test_profile_determines_quantization(
    weights: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported_run: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    steps: list[tuple[str, int, int]] = []
    result = export_model(
        "small:resnet8",
        weights=weights,
        precisions=["int8"],
        data=str(scenes),
        profile=load_profile("raspberry-pi-5"),
        progress=lambda *step: steps.append(step),
    )
    written = result.quantized["int8"].path
    assert (result.fp32, written) == (Path("resnet8.onnx"), Path("resnet8.int8.onnx"))
    assert written is not None and result.fp32.is_file()
    assert largest_weight(written) == 127
    assert largest_weight(exported_run / "model.int8.onnx") == 64
    int8 = Model.load(written)
    assert int8.metadata.quantization is not None
    assert int8.metadata.quantization["device"] == "raspberry-pi-5"
    assert int8.metadata.lineage["student"]["weights"] == weights.name
    for path in (result.fp32, written):
        assert str(weights.parent).encode() not in path.read_bytes(), "paths are not exported"
    assert int8.metadata.labels == ("0", "1", "2")
    latency = int8.metadata.quantization["latency_ms"]
    assert min(latency["fp32"], latency["int8"]) > 0 and latency["threads"] == 1 and latency["machine"]
    assert max(result.logits_error, result.map_error or 0) <= TOLERANCE
    assert {what: (done, total) for what, done, total in steps} == {
        "reading samples": (48, 48),
        "exporting": (1, 1),
        "calibrating": (64, 64),
        "choosing ranges": (4, 4),
    }


def test_method_none_writes_a_plain_graph(exported_run: Path, scenes: Path, tmp_path: Path) -> None:
    result = export_model(str(exported_run), output=tmp_path / "deep" / "plain.onnx", method="none", profile=GENERIC)
    assert (result.map_error, result.quantized) == (None, {})
    plain = Model.load(tmp_path / "deep" / "plain.onnx")
    assert not plain.has_map
    images = decode(index_dataset(scenes).val, plain.metadata.input).samples
    explained = Model.load(exported_run / "model.onnx").predict(images)
    np.testing.assert_allclose(plain.predict(images).logits, explained.logits, rtol=1e-4, atol=1e-5)
    # Default name in a run, so that neither file replaces the other.
    assert workflow._default_output(Artifacts.open(exported_run), explained=False) == exported_run / "model.plain.onnx"
    assert workflow._default_output(Artifacts.open(exported_run), explained=True) == exported_run / "model.onnx"


def test_calibration_images_cover_all_classes(tmp_path: Path) -> None:
    """Fewer than twice the required images give a step of one. A third is held out."""
    for label in range(4):
        for index in range(120):
            path = tmp_path / "train" / f"class {label}" / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (label, index, 0)).save(path)
        (tmp_path / "val" / f"class {label}").mkdir(parents=True)
        Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "val" / f"class {label}" / "0.png")
    spec = ImageInput(8, 8, mean=(0.5,) * 3, std=(0.5,) * 3)
    labels = ("class 0", "class 1", "class 2", "class 3")
    trained = TrainedModel(ModelSpec("small:resnet8", 4), torch.nn.Identity(), spec, labels, {})
    pictures = calibration_samples(Artifacts.open("small:resnet8"), trained, str(tmp_path), lambda *_: None).sets
    assert (len(pictures.calibration), len(pictures.held_out)) == (256, 160)
    assert np.bincount(pictures.calibration[:, 0, 0, 0]).tolist() == [64, 64, 64, 64], "or validation images"
    assert np.bincount(pictures.held_out[:, 0, 0, 0]).tolist() == [40, 40, 40, 40]
    np.testing.assert_array_equal(pictures.targets, pictures.held_out[:, 0, 0, 0])
    every = np.concatenate([pictures.calibration, pictures.held_out])
    assert len({tuple(image[0, 0]) for image in every}) == 416, "some are used for both"


def test_images_of_other_classes_have_no_labels(weights: Path, scenes: Path) -> None:
    trained = load_trained("small:resnet8", weights=weights)  # its classes are named 0, 1, 2
    pictures = calibration_samples(Artifacts.open("small:resnet8"), trained, str(scenes), lambda *_: None).sets
    assert pictures.targets is None and len(pictures.held_out) == 16


def test_single_calibration_image(weights: Path, tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, SIDE), (1, 2, 3)).save(tmp_path / "one.png")
    Image.new("RGB", (SIDE, SIDE), (3, 2, 1)).save(tmp_path / "two.png")
    result = export_model(
        "small:resnet8",
        weights=weights,
        output=tmp_path / "m.onnx",
        precisions=["int8"],
        data=str(tmp_path),
        profile=GENERIC,
    )
    assert result.quantized["int8"].path is not None
    assert result.quantized["int8"].note["calibration_samples"] == 1


def test_goal_keeps_fp32_layers_and_missed_goal_leaves_no_file(exported_run: Path, tmp_path: Path) -> None:
    kept = export_model(
        str(exported_run),
        output=tmp_path / "kept.onnx",
        precisions=["int8"],
        goal=FidelityGoal(0.98, 5.0),
        profile=GENERIC,
    )
    found = kept.quantized["int8"]
    assert found.tradeoff is not None and found.tradeoff.met and found.path is not None
    note = Model.load(found.path).metadata.quantization
    assert note is not None and note["goal"] == {"min_map_correlation": 0.98, "max_drop": 5.0}
    check_goal_reached(kept)
    missed = export_model(
        str(exported_run),
        output=tmp_path / "missed.onnx",
        precisions=["int8"],
        goal=FidelityGoal(1 - 1e-9),
        profile=GENERIC,
    )
    tradeoff = missed.quantized["int8"].tradeoff
    assert (
        tradeoff is not None
        and missed.quantized["int8"].path is None
        and not (tmp_path / "missed.int8.onnx").exists()
        and missed.fp32.is_file()
    )
    with pytest.raises(ValidationFailed, match=r"No int8 file.*map Pearson \d\.\d{6} instead of 1\. Loosen the goal"):
        check_goal_reached(missed)
    table = tradeoff_table(tradeoff)
    assert table.row_count >= 3
    write_image(tradeoff, image_path(missed.fp32))
    drawn = ElementTree.parse(tmp_path / "missed.tradeoff.svg").getroot()
    titles = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) >= 2 * len(tradeoff.points) and any("layer" in (title or "") for title in titles)


def test_unreadable_calibration_image_is_named(weights: Path, scenes: Path, tmp_path: Path) -> None:
    pictures = shutil.copytree(scenes, tmp_path / "pictures")
    first = min((pictures / "train").rglob("*.png"))
    first.write_bytes(b"")
    result = export_model(
        "small:resnet8",
        weights=weights,
        output=tmp_path / "m.onnx",
        precisions=["int8"],
        data=str(pictures),
        profile=GENERIC,
    )
    assert result.problems is not None and "1 empty" in result.problems and first.name in result.problems


def test_quantizing_a_named_model_needs_images(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    with pytest.raises(UsageError, match=r"samples to calibrate on.*--data DIR"):
        export_model("small:resnet8", weights=weights, output=output, precisions=["int8"], profile=GENERIC)
    assert not output.exists(), "the missing images were detected only after the export"


def test_unsupported_method_is_rejected_before_writing(tmp_path: Path) -> None:
    with pytest.raises(HeadNotSupported, match=r"SqueezeNet has no class activation map.*conv\+relu\+mean"):
        export_model(
            "torchvision:squeezenet1_0",
            pretrained=False,
            output=tmp_path / "model.onnx",
            method="cam",
            profile=GENERIC,
        )
    assert not list(tmp_path.iterdir())


def test_target_layer_without_map_is_rejected(weights: Path, tmp_path: Path) -> None:
    request = {"weights": weights, "output": tmp_path / "m.onnx", "profile": GENERIC}
    with pytest.raises(UsageError, match=r"--method none .*Remove --target-layer layer2"):
        export_model("small:resnet8", method="none", target_layer="layer2", **request)
    with pytest.raises(UsageError, match=r"has no layer 'layer9'.*layer"):
        export_model("small:resnet8", target_layer="layer9", **request)


def other_kernel(graph: onnx.GraphProto) -> None:
    kernel = next(tensor for tensor in graph.initializer if len(tensor.dims) == 4)
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(1.001), kernel.name))


def least_class(graph: onnx.GraphProto) -> None:
    next(node for node in graph.node if node.op_type == "ArgMax").op_type = "ArgMin"


def class_0_for_the_last(graph: onnx.GraphProto) -> None:
    """Return the map of class 0 for class 2, which is never the top class for noise images."""
    index = next(index for index, node in enumerate(graph.node) if "explained_class" in node.output)
    for node in graph.node:
        node.input[:] = ["wrong_class" if name == "explained_class" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array([2]), "two"))
    graph.node.insert(index + 1, helper.make_node("Mod", ["explained_class", "two"], ["wrong_class"]))


@pytest.mark.parametrize(
    ("surgery", "message"),
    [
        (other_kernel, "PyTorch"),
        (least_class, "top class"),
        (class_0_for_the_last, r"\(map\)"),
    ],
)
def test_wrong_graph_does_not_replace_the_file(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surgery: Callable, message: str
) -> None:
    output = tmp_path / "model.onnx"
    output.write_bytes(b"the one before")

    def export_another(module: ExportableModel) -> ExportedGraph:
        graph = export_graph(module)
        surgery(graph.model.graph)
        return graph

    monkeypatch.setattr(verified_export, "export_graph", export_another)
    with pytest.raises(KdedgeError, match=message):
        export_model("small:resnet8", weights=weights, output=output, profile=GENERIC)
    assert output.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [output]


def test_unverifiable_graph_is_rejected(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second layer removes a common offset of all features, and most float32 digits with it."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    network = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        network[0].weight[:, :, 1, 1] += 1e6
        network[2].weight -= network[2].weight.mean(dim=1, keepdim=True)
    ill = wrap_for_export(network, ImageInput(SIDE, SIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    monkeypatch.setattr(verified_export, "wrap_for_export", lambda *_: ill)
    with pytest.raises(KdedgeError, match=r"1e-02.*ill-conditioned"):
        export_model("small:resnet8", weights=weights, output=tmp_path / "model.onnx", profile=GENERIC)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("small:resnet8", "model.bin", r"must end in \.onnx; got .*model\.bin"),
        ("small:resnet9", "model.onnx", r"no model 'small:resnet9'.*small:resnet8"),
        ("runs/", "model.onnx", "a model name"),
    ],
)
def test_invalid_requests_are_rejected(tmp_path: Path, source: str, output: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(source, pretrained=False, output=tmp_path / output, profile=GENERIC)


def test_run_with_explicit_weights_is_rejected(exported_run: Path, weights: Path) -> None:
    with pytest.raises(UsageError, match="with its own weights"):
        export_model(str(exported_run), weights=weights, profile=GENERIC)

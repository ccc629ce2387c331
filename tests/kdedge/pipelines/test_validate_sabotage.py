"""Validation detects broken files: real files of a trained model, altered one by one."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from training_toys import Listener, write_squares

from kdedge.config.train_config import TrainConfig
from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import validate_model
from kdedge.training.training_run import start_run
from kdedge_export.torch_export import save_model
from kdedge_export.validation import ValidationReport
from kdedge_runtime import Metadata, Model
from kdedge_runtime.devices import load_profile

pytestmark = pytest.mark.slow
Surgery = Callable[[onnx.GraphProto], None]


@pytest.fixture(scope="module")
def sound_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small network without errors, with its fp32 and int8 files; read-only."""
    root = tmp_path_factory.mktemp("sabotage")
    data = write_squares(root / "squares", train=60, val=160)
    start_run(TrainConfig(str(data), "small:resnet8", epochs=8, batch_size=16), root / "run", Listener(), "cpu")
    export_model(str(root / "run"), precisions=["int8"], profile=load_profile("generic"))
    return root / "run"


@pytest.fixture(scope="module")
def sound_half_run(sound_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with its fp32 and fp16 files; read-only."""
    run = tmp_path_factory.mktemp("half") / "run"
    shutil.copytree(sound_run, run, ignore=shutil.ignore_patterns("*.onnx"))
    export_model(str(run), precisions=["fp16"], profile=load_profile("generic"))
    return run


@pytest.fixture
def half_run(sound_half_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound_half_run, tmp_path / "run"))


@pytest.fixture
def run(sound_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Samples of the same kind: too few to confirm every bound, and enough to detect each broken file."""
    return str(write_squares(tmp_path_factory.mktemp("few") / "squares", train=1, val=10))


def verdict(run: Path, data: str | None = None) -> tuple[ValidationReport, set[str]]:
    """Return the report on these samples, or on those of training, and the keys of its failed checks."""
    report = validate_model(str(run), data=data, quick=True).report
    return report, {check.key for check in report.checks if check.outcome == "failed"}


def alter(path: Path, surgery: Surgery = lambda _: None, **metadata: object) -> None:
    """Rewrite a model file with another graph or other metadata."""
    stated: Metadata = replace(Model.load(path).metadata, **metadata)  # type: ignore[arg-type]
    model = onnx.load(path)
    (default,) = (tensor for tensor in model.graph.initializer if tensor.name == "class_index")
    model.graph.initializer.remove(default)
    surgery(model.graph)
    save_model(model, stated, path)


def add_constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def rename_input(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def rename_output(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]


def swap_channels(graph: onnx.GraphProto) -> None:
    rename_input(graph, "image", "bgr")
    order = add_constant(graph, "order", np.array([2, 1, 0]))
    graph.node.insert(0, helper.make_node("Gather", ["image", order], ["bgr"], axis=3))


def scale_normalising(graph: onnx.GraphProto, which: int, factor: float) -> None:
    """Change the mean (0) or the standard deviation (1), both of shape [1, 3, 1, 1]."""
    constants = [tensor for tensor in graph.initializer if list(tensor.dims) == [1, 3, 1, 1]]
    assert len(constants) == 2
    # The mean is in pixel values, the standard deviation is stored as a reciprocal.
    constants.sort(key=lambda tensor: -float(numpy_helper.to_array(tensor).max()))
    value = numpy_helper.to_array(constants[which]) * np.float32(factor)
    constants[which].CopyFrom(numpy_helper.from_array(value, constants[which].name))


def explain(graph: onnx.GraphProto, shift: int | None) -> None:
    """Explain the class at this offset, or always class 0 for None, without reporting it."""
    rename_input(graph, "explained_class", "another_class")
    (maker,) = (index for index, node in enumerate(graph.node) if "explained_class" in node.output)
    offset = add_constant(graph, "offset", np.array([shift or 0]))
    modulus = add_constant(graph, "modulus", np.array([3 if shift is not None else 1]))
    graph.node.insert(maker + 1, helper.make_node("Mod", ["shifted_class", modulus], ["another_class"]))
    graph.node.insert(maker + 1, helper.make_node("Add", ["explained_class", offset], ["shifted_class"]))


def give_constant_map(graph: onnx.GraphProto) -> None:
    rename_output(graph, "saliency_map", "true_map")
    graph.node.append(
        helper.make_node("Mul", ["true_map", add_constant(graph, "nil", np.float32(0))], ["saliency_map"])
    )


def give_the_first_pictures_map(graph: onnx.GraphProto) -> None:
    """Return the same map for every image, like an exporter that records a gradient as a constant."""
    rename_output(graph, "saliency_map", "true_map")
    shape = [
        dim.dim_value for dim in next(o for o in graph.output if o.name == "saliency_map").type.tensor_type.shape.dim
    ]
    frozen = np.random.default_rng(0).normal(size=(1, *shape[1:])).astype(np.float32)
    nil = add_constant(graph, "nil", np.float32(0))
    graph.node.append(helper.make_node("Mul", ["true_map", nil], ["flat_map"]))
    graph.node.append(helper.make_node("Add", ["flat_map", add_constant(graph, "frozen", frozen)], ["saliency_map"]))


def show_a_spot(graph: onnx.GraphProto, scale: float, noise: float) -> None:
    """Return a spot in the center of every image, scaled by the true map's mean, mixed with the true map."""
    rename_output(graph, "saliency_map", "true_map")
    sides = next(o for o in graph.output if o.name == "saliency_map").type.tensor_type.shape.dim[1:]
    down, across = (np.linspace(-1, 1, side.dim_value) for side in sides)
    spot = np.exp(-2 * (down[:, None] ** 2 + across**2)).astype(np.float32)[None]
    named = {"spot": spot, "scale": np.float32(scale), "noise": np.float32(noise), "cells": np.array([1, 2])}
    for name, value in named.items():
        add_constant(graph, name, value)
    node = helper.make_node
    graph.node.extend(
        [
            node("ReduceMean", ["true_map", "cells"], ["logit"]),
            node("Mul", ["logit", "scale"], ["scaled"]),
            node("Add", ["scaled", add_constant(graph, "rest", np.float32(1 - scale))], ["height"]),
            node("Mul", ["spot", "height"], ["bell"]),
            node("Abs", ["true_map"], ["sizes"]),
            node("ReduceMax", ["sizes", "cells"], ["largest"]),
            node("Div", ["true_map", "largest"], ["shape"]),
            node("Mul", ["shape", "noise"], ["grain"]),
            node("Add", ["bell", "grain"], ["saliency_map"]),
        ]
    )


def scale_output(graph: onnx.GraphProto, name: str, factor: float) -> None:
    """Scale an output without scaling values computed from it."""
    rename_output(graph, name, f"true_{name}")
    rename_input(graph, name, f"true_{name}")
    factors = add_constant(graph, f"{name}_factor", np.float32(factor))
    graph.node.append(helper.make_node("Mul", [f"true_{name}", factors], [name]))


def explain_the_least_class(graph: onnx.GraphProto) -> None:
    """Explain the class with the lowest logit by default."""
    (top,) = (node for node in graph.node if node.op_type == "ArgMax")
    top.op_type = "ArgMin"


def mix_up_other_classes(graph: onnx.GraphProto) -> None:
    """Return the next class's map for every class except the top one, without reporting it."""
    (top,) = (node for node in graph.node if node.op_type == "ArgMax")
    rename_input(graph, "explained_class", "another_class")
    (maker,) = (index for index, node in enumerate(graph.node) if "explained_class" in node.output)
    for name, value in (("one_on", 1), ("three", 3)):
        add_constant(graph, name, np.array([value]))
    node = helper.make_node
    axes = add_constant(graph, "flat_axes", np.array([-1]))
    made = [
        node("Reshape", [top.output[0], axes], ["flat_top"]),
        node("Equal", ["explained_class", "flat_top"], ["is_top"]),
        node("Add", ["explained_class", "one_on"], ["next_class"]),
        node("Mod", ["next_class", "three"], ["wrapped_class"]),
        node("Where", ["is_top", "explained_class", "wrapped_class"], ["another_class"]),
    ]
    for number, each in enumerate(made):
        graph.node.insert(maker + 1 + number, each)


def test_unmodified_files_pass(run: Path) -> None:
    report, broken = verdict(run)
    assert broken == set() and report.complete and report.passed
    assert report.models["int8"].arithmetic == "exact sums", "verdicts would depend on the CPU"


@pytest.mark.parametrize(
    ("surgery", "keys"),
    [
        (swap_channels, {"fp32_map_error"}),
        (lambda graph: scale_normalising(graph, 0, 0.8), {"fp32_map_error"}),
        (lambda graph: scale_normalising(graph, 1, 1.2), {"fp32_map_error"}),
        (lambda graph: explain(graph, 1), {"fp32_map_error"}),
        (lambda graph: explain(graph, None), {"fp32_map_error", "fp32_map_similarity_class"}),
        (
            give_constant_map,
            {"fp32_map_error", "fp32_map_similarity_class", "fp32_map_similarity_sample"},
        ),
        (
            give_the_first_pictures_map,
            {"fp32_map_error", "fp32_map_similarity_class", "fp32_map_similarity_sample"},
        ),
        (lambda graph: show_a_spot(graph, 1.0, 0.0), {"fp32_map_error", "fp32_map_similarity_sample"}),
        (
            lambda graph: show_a_spot(graph, 0.0, 0.0),
            {"fp32_map_error", "fp32_map_similarity_class", "fp32_map_similarity_sample"},
        ),
        (
            lambda graph: show_a_spot(graph, 0.0, 0.02),
            {"fp32_map_error", "fp32_map_similarity_class", "fp32_map_similarity_sample"},
        ),
        (lambda graph: scale_output(graph, "logits", 3), {"fp32_logits_error"}),
        (lambda graph: scale_output(graph, "logits", 0.1), {"fp32_logits_error", "fp32_divergence"}),
        (explain_the_least_class, {"fp32_default_class"}),
        (mix_up_other_classes, {"fp32_other_map_error"}),
        (lambda graph: scale_output(graph, "saliency_map", 1.3), {"fp32_map_error"}),
    ],
    ids=[
        "channels",
        "mean",
        "std",
        "wrong class",
        "one class",
        "constant map",
        "frozen map",
        "a spot times the logit",
        "a spot",
        "a spot with noise",
        "logits x 3",
        "logits x 0.1",
        "least class by default",
        "maps of other classes",
        "map x 1.3",
    ],
)
def test_broken_graph_fails(run: Path, few: str, surgery: Surgery, keys: set[str]) -> None:
    alter(run / "model.onnx", surgery)
    _, broken = verdict(run, few)
    assert keys <= broken
    assert {key.split("_")[0] for key in broken} == {"fp32"}


@pytest.mark.parametrize(
    ("surgery", "key"),
    [
        (swap_channels, "int8_map_pearson_mean"),
        (lambda graph: explain(graph, 1), "int8_map_pearson_mean"),
        (give_constant_map, "int8_map_pearson_mean"),
        (lambda graph: scale_output(graph, "logits", 3), "int8_logits_distance"),
        (lambda graph: scale_output(graph, "logits", 0.1), "int8_divergence"),
        (explain_the_least_class, "int8_default_class"),
        (mix_up_other_classes, "int8_other_map_pearson"),
        (lambda graph: scale_output(graph, "saliency_map", 1.3), "int8_map_scale_error"),
    ],
    ids=[
        "channels",
        "wrong class",
        "constant map",
        "logits x 3",
        "logits x 0.1",
        "least class by default",
        "maps of other classes",
        "map x 1.3",
    ],
)
def test_broken_int8_graph_fails(run: Path, few: str, surgery: Surgery, key: str) -> None:
    alter(run / "model.int8.onnx", surgery)
    _, broken = verdict(run, few)
    assert key in broken
    assert {key.split("_")[0] for key in broken} == {"int8"}


def test_intact_fp16_file_passes(half_run: Path) -> None:
    report, broken = verdict(half_run)
    assert report.passed and broken == set() and report.shipped.name == "fp16"
    compared = report.comparisons["fp16"]
    assert compared.agreement > 0.99 and compared.maps is not None and compared.maps.pearson_p5 > 0.999


def infinite(graph: onnx.GraphProto) -> None:
    """Multiply the activations of a float16 layer beyond the largest float16."""
    layer = next(node for node in graph.node if node.op_type == "Relu")
    (inside,) = layer.output
    layer.output[0] = "small"
    factor = add_constant(graph, "factor", np.float16(60_000))
    place = list(graph.node).index(layer)
    graph.node.insert(place + 1, helper.make_node("Mul", ["small", factor], ["large"]))
    graph.node.insert(place + 2, helper.make_node("Mul", ["large", factor], [inside]))


@pytest.mark.parametrize(
    ("surgery", "key"),
    [
        (swap_channels, "fp16_map_pearson_p5"),
        (lambda graph: explain(graph, 1), "fp16_map_pearson_mean"),
        (give_constant_map, "fp16_map_pearson_mean"),
        (lambda graph: scale_output(graph, "logits", 1.3), "fp16_logits_distance"),
        (lambda graph: scale_output(graph, "logits", 0.1), "fp16_divergence"),
        (explain_the_least_class, "fp16_default_class"),
        (mix_up_other_classes, "fp16_other_map_pearson"),
        (lambda graph: scale_output(graph, "saliency_map", 1.1), "fp16_map_scale_error"),
    ],
    ids=[
        "channels",
        "wrong class",
        "constant map",
        "logits x 1.3",
        "logits x 0.1",
        "least class by default",
        "maps of other classes",
        "map x 1.1",
    ],
)
def test_broken_fp16_graph_fails(half_run: Path, few: str, surgery: Surgery, key: str) -> None:
    alter(half_run / "model.fp16.onnx", surgery)
    _, broken = verdict(half_run, few)
    assert key in broken
    assert {key.split("_")[0] for key in broken} == {"fp16"}


def test_overflowing_fp16_graph_fails(half_run: Path, few: str) -> None:
    alter(half_run / "model.fp16.onnx", infinite)
    _, broken = verdict(half_run, few)
    assert {"fp16_accuracy_drop", "fp16_map_pearson_mean"} <= broken


@pytest.mark.parametrize("file", ["fp32", "int8"])
def test_reordered_labels_fail(run: Path, few: str, file: str) -> None:
    path = run / ("model.onnx" if file == "fp32" else "model.int8.onnx")
    alter(path, labels=Model.load(path).metadata.labels[::-1])
    _, broken = verdict(run, few)
    assert broken == {f"{file}_labels"}


@pytest.mark.parametrize(
    "change",
    [{"resize": "squash"}, {"crop_fraction": 0.875}, {"interpolation": "bicubic"}, {"mean": (0.5, 0.5, 0.5)}],
    ids=["squash", "crop", "filter", "mean"],
)
def test_different_resizing_rule_fails(run: Path, few: str, change: dict[str, object]) -> None:
    stated = Model.load(run / "model.onnx").metadata.input
    alter(run / "model.onnx", input=replace(stated, **change))  # type: ignore[arg-type]
    _, broken = verdict(run, few)
    assert broken == {"fp32_input"}

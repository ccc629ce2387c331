"""Units near a kink may fall on either side; maps that are wrong for another reason keep their error."""

import sys

import numpy as np
import onnx
import pytest
import torch
from export_cache import GraphFolder
from map_checks import Draw, changed, map_check
from onnx import helper, numpy_helper
from small_nets import CLASSES, SPEC, HeadNet, randomised
from torch import nn
from torch.nn import functional as F

from kdedge_export.metrics import map_similarity
from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.torch_export import ExportableModel, export_graph, save_model, wrap_for_export
from kdedge_export.validation import Models, ValidationSet, validate
from kdedge_export.validation.activation_boundaries import ActivationCall, BoundaryRecorder, BoundaryUnit
from kdedge_export.validation.aligned_maps import align_activations, has_boundaries
from kdedge_runtime import Metadata, Model

LABELS = tuple(map(str, range(CLASSES)))
TOLERANCE = 1e-4
CHANNELS = (0, 1)
MARGIN = 5e-7
"""Margin for values of about 1: more than sums in different orders differ, but less than four roundings."""


def at_its_boundaries(image: np.ndarray) -> torch.nn.Module:
    """Return a network in which one unit of some channels is below zero for this image, by less than rounding."""
    torch.manual_seed(0)
    network = randomised(HeadNet())
    x = wrap_for_export(network, SPEC).front_end(torch.from_numpy(image))
    convolution, norm = network.features[0], network.features[1]
    channels = torch.tensor(CHANNELS)  # each at a different position of the image
    with torch.no_grad():
        for _ in range(3):  # the first iteration leaves the rounding of a large bias
            norm.bias[channels] -= norm(convolution(x))[0, channels, channels + 3, 2 * channels] + MARGIN
    return network


def exported(graphs: GraphFolder, image: np.ndarray, method: str, folder) -> tuple[ExportableModel, Model]:
    """Return the network and its graph, in which these units are slightly above zero."""
    module = wrap_for_export(at_its_boundaries(image), SPEC, method)
    key = f"at its boundaries: {method}, {CHANNELS}, {image.tobytes().hex()}"
    graph = graphs.get(key, lambda: export_graph(module))
    save_model(graph.model, Metadata(LABELS, SPEC, module.outputs), folder / "model.onnx")
    channels = np.isin(np.arange(8), CHANNELS)

    def nudge(graph: onnx.ModelProto) -> None:
        norm = next(node for node in graph.graph.node if node.op_type == "BatchNormalization")
        (bias,) = [tensor for tensor in graph.graph.initializer if tensor.name == norm.input[2]]
        moved = numpy_helper.to_array(bias) + np.float32(2 * MARGIN) * channels.astype(np.float32)
        bias.CopyFrom(numpy_helper.from_array(moved, bias.name))

    return module, changed(Model.load(folder / "model.onnx", threads=1), nudge, folder)


@pytest.mark.parametrize("method", ["input-gradient", "integrated-gradients", "smoothgrad"])
def test_graph_units_may_fall_on_other_sides_of_their_boundaries(
    method: str, graphs: GraphFolder, pictures: Draw, tmp_path
) -> None:
    image = pictures(1, 1)
    module, model = exported(graphs, image, method, tmp_path)
    ours = predict(module, image)
    theirs = model.predict(image).saliency_map
    if method == "input-gradient":
        raw = map_similarity.map_error(ours.maps, theirs).max()
        assert raw > 10 * TOLERANCE, "the network does not reproduce the effect"
    alike = align_activations(module, model, image, ours.explained_class)
    assert map_similarity.map_error(alike.maps, theirs).max() <= TOLERANCE
    check = map_check(module, model, image)
    assert check.passed and check.bound == TOLERANCE


@pytest.mark.parametrize("method", ["input-gradient", "smoothgrad"])
def test_local_error_of_one_percent_is_detected_despite_moved_units(
    method, graphs: GraphFolder, pictures: Draw, tmp_path
) -> None:
    image = pictures(1, 1)
    module, model = exported(graphs, image, method, tmp_path)
    reach = np.ptp(model.predict(image).saliency_map)

    def spoil(graph: onnx.ModelProto) -> None:
        patch = np.zeros((1, 32, 32), np.float32)
        patch[:, 20:26, 8:14] = 0.01 * reach
        (writer,) = [node for node in graph.graph.node if "saliency_map" in node.output]
        writer.output[0] = "sound_map"
        graph.graph.initializer.append(numpy_helper.from_array(patch, "patch"))
        graph.graph.node.append(helper.make_node("Add", ["sound_map", "patch"], ["saliency_map"], "spoil"))

    check = map_check(module, changed(model, spoil, tmp_path), image)
    assert check.passed is False and check.measured == pytest.approx(0.01, rel=0.05)


def test_error_not_due_to_rounding_is_kept(graphs: GraphFolder, pictures: Draw, tmp_path) -> None:
    """Biases increased by 0.001 also flip units, but not by rounding."""
    image = pictures(1, 1)
    module, model = exported(graphs, image, "input-gradient", tmp_path)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def raise_biases(graph: onnx.ModelProto) -> None:
        norm = next(node for node in graph.graph.node if node.op_type == "BatchNormalization")
        (bias,) = [tensor for tensor in graph.graph.initializer if tensor.name == norm.input[2]]
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1e-3), bias.name))

    check = map_check(module, changed(model, raise_biases, tmp_path), image)
    assert check.passed is False and check.measured > 100 * TOLERANCE
    for name, value in module.state_dict().items():
        assert value.dtype == before[name].dtype, "the float64 run changed the module"
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


@pytest.mark.parametrize(("scale", "off_by"), [(1e6, 0.3), (1e6, 0.1), (1e5, 0.01), (1e4, 0.001), (1e3, 0.001)])
def test_channel_of_large_scale_does_not_excuse_other_channels(
    scale: float, off_by: float, graphs: GraphFolder, pictures: Draw, tmp_path
) -> None:
    """The large channel's rounding error equals the error of the others, and the function is the same."""
    image = pictures(4, 1)
    torch.manual_seed(0)
    network = randomised(HeadNet())
    norm, dense = network.features[4], network.head[0]
    with torch.no_grad():
        norm.weight[3] *= scale
        norm.bias[3] *= scale
        dense.weight[:, 3] /= scale
    module = wrap_for_export(network, SPEC, "input-gradient")
    graph = graphs.get(f"channel of large scale: {scale}", lambda: export_graph(module))
    save_model(graph.model, Metadata(LABELS, SPEC, module.outputs), tmp_path / "model.onnx")
    sound = Model.load(tmp_path / "model.onnx", threads=1)
    assert map_check(module, sound, image).passed

    def move_biases(graph: onnx.ModelProto) -> None:
        last = [node for node in graph.graph.node if node.op_type == "BatchNormalization"][-1]
        (bias,) = [tensor for tensor in graph.graph.initializer if tensor.name == last.input[2]]
        wrong = numpy_helper.to_array(bias) + np.float32(off_by)
        wrong[3] -= np.float32(off_by)
        bias.CopyFrom(numpy_helper.from_array(wrong, bias.name))

    wrong, ours = changed(sound, move_biases, tmp_path), predict(module, image)
    true_error = map_similarity.map_error(ours.maps, predict(wrong, image, ours.explained_class).maps).max()
    check = map_check(module, wrong, image)
    if true_error > TOLERANCE:
        assert check.outcome == "failed" and check.measured >= 0.5 * true_error
    assert true_error > TOLERANCE or off_by <= 0.001


def test_moved_units_are_reported_with_both_errors(graphs: GraphFolder, pictures: Draw, tmp_path) -> None:
    image = pictures(1, 1)
    module, model = exported(graphs, image, "input-gradient", tmp_path)
    data = ValidationSet(image, LABELS, names=["bottle/7.png"])
    report, _ = validate(Models(module, model), data, quick=True)
    (aligned,) = report.aligned
    assert aligned.sample == 0 and 1 <= aligned.moved <= 2
    assert aligned.error <= TOLERANCE < aligned.raw_error
    assert aligned.raw_pearson < aligned.pearson <= 1
    assert report.comparisons["fp32"].maps.pearson_mean == pytest.approx(aligned.raw_pearson)
    assert report.comparisons["fp32"].maps.max_relative_error == pytest.approx(aligned.raw_error)
    (note,) = (note for note in report.notes if "kink" in note)
    assert "bottle/7.png" in note and f"{aligned.raw_error:.1e}" in note


def test_no_unit_is_moved_if_too_many_would_be(
    graphs: GraphFolder, pictures: Draw, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pictures(1, 1)
    monkeypatch.setattr(sys.modules[__name__], "CHANNELS", tuple(range(8)))
    module, model = exported(graphs, image, "input-gradient", tmp_path)
    ours = predict(module, image)
    alike = align_activations(module, model, image, ours.explained_class)
    assert alike.moved.tolist() == [0]
    np.testing.assert_array_equal(alike.maps, ours.maps)


def test_closed_form_has_no_boundaries_and_smooth_network_no_moved_units(pictures: Draw, tmp_path) -> None:
    image = pictures(1, 1)
    torch.manual_seed(0)
    network = randomised(HeadNet())
    assert not has_boundaries(wrap_for_export(network, SPEC))
    network.features[2], network.features[5] = nn.SiLU(), nn.SiLU()
    module = wrap_for_export(network, SPEC, "input-gradient")
    assert has_boundaries(module)
    save_model(export_graph(module).model, Metadata(LABELS, SPEC, module.outputs), tmp_path / "model.onnx")
    model, ours = Model.load(tmp_path / "model.onnx", threads=1), predict(module, image)
    np.testing.assert_array_equal(align_activations(module, model, image, ours.explained_class).maps, ours.maps)


@pytest.mark.parametrize(
    ("function", "boundaries"),
    [
        (F.relu, [0]),
        (nn.ReLU(inplace=True), [0]),
        (F.relu6, [0, 6]),
        (nn.Hardtanh(-2, 2), [-2, 2]),
        (F.hardswish, [-3, 3]),
        (F.hardsigmoid, [-3, 3]),
        (F.leaky_relu, [0]),
        (lambda x: x.clamp(min=1.0), [1]),
        (lambda x: torch.clamp(x, -1, 4), [-1, 4]),
        (lambda x: torch.clamp(x, 0, 1), [0, 1]),
        (lambda x: F.hardtanh(x, 0, 1), [0, 1]),
        (lambda x: torch.clamp(x, torch.zeros(7), torch.ones(7)), [0, 1]),
    ],
    ids=[
        "relu",
        "in place",
        "relu6",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "leaky",
        "from 1",
        "from -1 to 4",
        "from 0 to 1",
        "hardtanh from 0 to 1",
        "between tensors",
    ],
)
def test_unit_is_moved_to_its_side_in_the_other_run(function, boundaries: list[float]) -> None:
    step = 2.0**-16
    here = torch.tensor([boundary + side * step for boundary in boundaries for side in (-1, 1)] + [0.5, 2.5, -5.0])
    there = torch.tensor([boundary - side * step for boundary in boundaries for side in (-1, 1)] + [0.4, 2.6, -5.1])
    found: list[BoundaryUnit] = []

    def watch(call: ActivationCall) -> None:
        turned = call.turned(call.x, function(there.clone()), torch.full_like(call.x, 2 * step))
        found.extend(BoundaryUnit(call.number, index, push) for index, push in turned)
        assert call.turned(call.x, function(here.clone()), torch.full_like(call.x, 2 * step)) == []
        assert call.turned(call.x, function(there.clone()), torch.full_like(call.x, 0.5 * step)) == []

    slopes = []
    for pushed in ([], found):
        x = here.clone().requires_grad_()
        with BoundaryRecorder(None if pushed else watch, pushed):
            y = function(x * 1)
        slopes.append(torch.autograd.grad(y.sum(), x)[0])
    assert {unit.index for unit in found} == set(range(2 * len(boundaries))) and {unit.call for unit in found} == {0}
    before, after = slopes
    for low in range(0, 2 * len(boundaries), 2):
        assert before[low] != before[low + 1]
        torch.testing.assert_close(after[[low, low + 1]], before[[low + 1, low]], atol=1e-4, rtol=0)
    torch.testing.assert_close(after[2 * len(boundaries) :], before[2 * len(boundaries) :])


@pytest.mark.parametrize(
    ("function", "in_place"),
    [
        (lambda x: torch.clamp(x, 0, 1), False),
        (lambda x: F.hardtanh(x, 0, 1), False),
        (lambda x: F.leaky_relu(x, 1), False),
        (lambda x: F.hardtanh(x, 0, 1, True), True),
        (lambda x: F.relu6(x, inplace=True), True),
        (lambda x: x.clamp_(0, 1), True),
    ],
    ids=["clamp", "hardtanh", "leaky", "hardtanh in place", "relu6 in place", "clamp_"],
)
def test_in_place_functions_are_moved_in_place(function, in_place: bool) -> None:
    x = torch.tensor([0.25, 0.5])
    with BoundaryRecorder(pushed=[BoundaryUnit(0, 1, 0.125)]):
        result = function(x)
    assert result.tolist() == [0.25, 0.625]
    assert x.tolist() == ([0.25, 0.625] if in_place else [0.25, 0.5])


def test_pooling_with_ceil_mode_is_not_in_place() -> None:
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    with BoundaryRecorder(pushed=[BoundaryUnit(0, 24, 1.0)]):
        F.max_pool2d(x, 2, 2, 0, 1, True)
    assert x.flatten()[24] == 24


@pytest.mark.parametrize(
    ("kernel", "padding", "ceil_mode", "columns"), [(2, 0, False, (2, 3)), (4, 1, False, (1, 2)), (4, 0, True, (4, 5))]
)
def test_runner_up_of_a_window_wins_if_larger_in_the_other_run(
    kernel: int, padding: int, ceil_mode: bool, columns: tuple[int, int]
) -> None:
    here = torch.arange(72.0).reshape(1, 2, 6, 6)
    there, (second, first) = here.clone(), columns
    here[0, 1, 2, second], here[0, 1, 2, first] = 90.0, 90.00002
    there[0, 1, 2, second], there[0, 1, 2, first] = 90.00002, 90.0
    found: list[BoundaryUnit] = []

    def watch(call: ActivationCall) -> None:
        far, near = (torch.full_like(call.x, reach) for reach in (1e-4, 1e-6))
        assert call.pools and call.turned(call.x, here, far) == [] == call.turned(call.x, there, near)
        found.extend(BoundaryUnit(call.number, index, push) for index, push in call.turned(call.x, there, far))

    for pushed, winner, other in (([], first, second), (found, second, first)):
        values = here.clone().requires_grad_()
        with BoundaryRecorder(None if pushed else watch, pushed):
            y = F.max_pool2d(values, kernel, stride=kernel, padding=padding, ceil_mode=ceil_mode)
        slopes = torch.autograd.grad(y.sum(), values)[0]
        assert slopes[0, 1, 2, winner] == 1 and slopes[0, 1, 2, other] == 0
    assert [unit.index for unit in found] == [36 + 2 * 6 + second]

"""Rounding error: a file may differ from PyTorch as much as float32 from float64; a wrong file differs more."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from map_checks import Draw, changed, map_check
from onnx import helper, numpy_helper
from small_nets import CLASSES, SPEC, HeadNet, randomised

from kdedge_export.metrics import map_similarity
from kdedge_export.metrics.comparison import compare
from kdedge_export.metrics.torch_predictions import predict
from kdedge_export.tasks.classification import CLASSIFICATION
from kdedge_export.torch_export import ExportableModel, export_graph, save_model, wrap_for_export
from kdedge_export.validation import Gates
from kdedge_export.validation.fidelity_checks import check_comparison
from kdedge_export.validation.float_tolerance import CEILING, is_tied, measure_float_tolerance, worst_case
from kdedge_runtime import Metadata, Model

LABELS = tuple(map(str, range(CLASSES)))


def cancelling(method: str) -> ExportableModel:
    """Return a network whose features lie close together, far from zero, until a normalization removes the offset."""
    torch.manual_seed(0)
    network = randomised(HeadNet())
    norm, convolution, second = network.features[1], network.features[3], network.features[4]
    network.features[5] = torch.nn.SiLU()  # without kinks
    with torch.no_grad():
        norm.bias += 3e3
        second.running_mean += 3e3 * convolution.weight.sum(dim=(1, 2, 3))
    convolution.padding = (0, 0)  # zero padding would have no offset
    return wrap_for_export(network, SPEC, method)


@pytest.mark.parametrize("method", ["gradcam", "input-gradient"])
def test_file_may_differ_by_the_float32_error(method: str, pictures: Draw, tmp_path) -> None:
    images, module = pictures(2, 1), cancelling(method)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    save_model(export_graph(module).model, Metadata(LABELS, SPEC, module.outputs), tmp_path / "model.onnx")
    model = Model.load(tmp_path / "model.onnx", threads=1)
    prediction = model.predict(images)
    with torch.no_grad():
        logits, maps, classes = module(torch.from_numpy(images), torch.tensor([-1]))
        _, others, _ = module(torch.from_numpy(images), (classes + 1) % CLASSES)
    errors = map_similarity.map_error(maps.numpy(), prediction.saliency_map)
    assert errors.max() > 1e-4, "the network does not reproduce the effect"
    rounding = measure_float_tolerance(module, images, classes.numpy(), CLASSIFICATION)
    of_logits, of_maps = rounding.logits, rounding.maps
    assert (errors <= of_maps).all()
    assert (np.abs(prediction.logits - logits.numpy()).max(axis=1) / np.ptp(logits.numpy(), axis=1) <= of_logits).all()
    assert (map_similarity.map_error(maps.numpy(), others.numpy()) > 10 * of_maps).all()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert map_check(module, model, images).passed


def tied(image: np.ndarray, by: float) -> ExportableModel:
    """Return a network whose two top logits for this image differ by this fraction of the logits' range."""
    torch.manual_seed(0)
    module = wrap_for_export(randomised(HeadNet()), SPEC)
    head = module.explained.model.get_parameter(module.explained.head.layers[-1].bias)  # type: ignore[union-attr]
    with torch.no_grad():
        for _ in range(3):
            logits = module(torch.from_numpy(image), torch.tensor([-1]))[0][0]
            first, second = logits.topk(2).indices
            head[second] += logits[first] - logits[second] - by * (logits.max() - logits.min())
    return module


@pytest.mark.parametrize(("by", "ties"), [(1e-7, 1), (1e-5, 0), (1e-3, 0)])
def test_classes_tied_by_rounding_count_as_agreement(by: float, ties: int, pictures: Draw) -> None:
    images = pictures(3, 1)
    module = tied(images[:1], by)
    ours = predict(module, images)
    first, second = np.argsort(-ours.logits[0])[:2]
    other = ours.logits.copy()
    other[0, [first, second]] = other[0, [second, first]]
    theirs = replace(ours, logits=other)
    assert is_tied(module, images, ours, theirs, CLASSIFICATION) == ties
    compared = compare(ours, theirs, None, CLASSIFICATION)
    agreement, *_ = check_comparison("fp32", compared, Gates(), ties=ties)
    assert compared.agreement < 1.0 and agreement.passed is bool(ties)


def test_non_finite_prediction_is_no_tie(pictures: Draw) -> None:
    images = pictures(2, 1)
    module = tied(images[:1], 1e-7)
    ours = predict(module, images)
    theirs = replace(ours, logits=np.full_like(ours.logits, np.nan))
    assert is_tied(module, images, ours, theirs, CLASSIFICATION) == 0


@pytest.mark.parametrize("method", ["gradcam", "input-gradient"])
def test_rounding_error_of_a_sound_network_is_below_the_bound(method: str, pictures: Draw) -> None:
    images = pictures(2, 1)
    torch.manual_seed(0)
    module = wrap_for_export(randomised(HeadNet()), SPEC, method)
    rounding = measure_float_tolerance(module, images, np.array([3, 4]), CLASSIFICATION)
    of_logits, of_maps = rounding.logits, rounding.maps
    assert (np.abs(rounding.divergence) <= 1e-8).all()
    assert of_logits.shape == of_maps.shape == (2,)
    assert ((of_logits > 0) & (of_logits <= 2e-5)).all()
    assert ((of_maps > 0) & (of_maps <= 2e-5)).all()


def dazzled() -> ExportableModel:
    """Return a network in which brightness shifts all features by so much that rounding dominates."""
    torch.manual_seed(0)
    network = randomised(HeadNet())
    first, norm, second = network.features[0], network.features[1], network.features[3]
    with torch.no_grad():
        first.weight[:, :, 1, 1] += 3e7 * ((norm.running_var + norm.eps).sqrt() / norm.weight)[:, None]
        second.weight -= second.weight.mean(dim=1, keepdim=True)
    second.padding = (0, 0)
    return wrap_for_export(network, replace(SPEC, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))


def explain_the_next_class(graph: onnx.ModelProto) -> None:
    (maker,) = (index for index, node in enumerate(graph.graph.node) if "explained_class" in node.output)
    for node in graph.graph.node:
        node.input[:] = ["other_class" if name == "explained_class" else name for name in node.input]
    graph.graph.initializer.extend(
        [numpy_helper.from_array(np.array([1]), "one"), numpy_helper.from_array(np.array([CLASSES]), "classes")]
    )
    graph.graph.node.insert(maker + 1, helper.make_node("Mod", ["shifted_class", "classes"], ["other_class"]))
    graph.graph.node.insert(maker + 1, helper.make_node("Add", ["explained_class", "one"], ["shifted_class"]))


def test_rounding_error_of_one_image_does_not_excuse_another(tmp_path) -> None:
    """The map of a bright image is noise; a wrong-class map of a dark image must still be detected."""
    draw, module = np.random.default_rng(0), dazzled()
    dark, bright = draw.integers(0, 3, (40, 32, 32, 3)), draw.integers(150, 256, (2, 32, 32, 3))
    images = np.concatenate([dark, bright]).astype(np.uint8)
    save_model(export_graph(module).model, Metadata(LABELS, module.spec, module.outputs), tmp_path / "model.onnx")
    sound = Model.load(tmp_path / "model.onnx", threads=1)
    wrong = changed(sound, explain_the_next_class, tmp_path)
    ours = predict(module, images)
    wrong_errors = map_similarity.map_error(ours.maps, predict(wrong, images, ours.explained_class).maps)
    of_maps = measure_float_tolerance(module, images, ours.explained_class, CLASSIFICATION).maps
    assert of_maps.max() > wrong_errors[:40].max(), "the network does not reproduce the effect"
    assert map_check(module, wrong, images).outcome == "failed"


def test_agreement_within_rounding_above_one_percent_is_inconclusive(tmp_path) -> None:
    images, module = np.random.default_rng(0).integers(150, 256, (2, 32, 32, 3)).astype(np.uint8), dazzled()
    save_model(export_graph(module).model, Metadata(LABELS, module.spec, module.outputs), tmp_path / "model.onnx")
    sound = Model.load(tmp_path / "model.onnx", threads=1)
    for model in (sound, changed(sound, explain_the_next_class, tmp_path)):
        check = map_check(module, model, images)
        assert check.outcome == "inconclusive" and check.passed is False and check.measured > check.bound == CEILING
        assert "float32 alone explains up to" in check.reason


@pytest.mark.parametrize(
    ("errors", "rounding", "expected"),
    [
        ([1e-6, 5e-5], [0, 0], ("passed", 5e-5, 1e-4)),
        ([1e-6, 5e-3], [0, 6e-3], ("passed", 5e-3, 6e-3)),
        ([5e-3, 5e-5], [4e-3, 1], ("failed", 5e-3, 4e-3)),
        ([2e-4, 2e-2], [0, 1], ("failed", 2e-4, 1e-4)),
        ([5e-5, 2e-2], [0, 1], ("inconclusive", 2e-2, 1e-2)),
        ([5e-5, 9e-3], [0, 1], ("passed", 9e-3, 1e-2)),
        ([2e-2, np.nan], [1, np.nan], ("failed", np.nan, 1e-4)),
        ([2e-2, np.inf], [1, 1], ("failed", np.inf, 1e-2)),
    ],
)
def test_each_error_is_compared_with_its_own_rounding(errors: list[float], rounding: list[float], expected) -> None:
    found = worst_case(np.array(errors), np.array(rounding), 1e-4)
    np.testing.assert_equal((found.outcome, found.error, found.bound), expected)

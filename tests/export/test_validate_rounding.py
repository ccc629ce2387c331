"""Where float32 itself is far from the weights' meaning, a file may be as far; a wrong file is further."""

import numpy as np
import pytest
import torch
from small_nets import CLASSES, SPEC, HeadNet, randomised
from test_graph import Draw

from kdedge_export.graph import Deployed, deploy, export_graph, save_model
from kdedge_export.validate import metrics
from kdedge_export.validate.rounding import spread_of_rounding
from kdedge_export.validate.validation import validate
from kdedge_runtime import Metadata, Model

LABELS = tuple(map(str, range(CLASSES)))


def cancelling(method: str) -> Deployed:
    """Features that lie close together, far from zero, until the second normalisation takes the offset away."""
    torch.manual_seed(0)
    network = randomised(HeadNet())
    norm, convolution, second = network.features[1], network.features[3], network.features[4]
    network.features[5] = torch.nn.SiLU()  # without kinks
    with torch.no_grad():
        norm.bias += 3e3
        second.running_mean += 3e3 * convolution.weight.sum(dim=(1, 2, 3))
    convolution.padding = (0, 0)  # a border of zeros would have no offset
    return deploy(network, SPEC, method)


@pytest.mark.parametrize("method", ["gradcam", "input-gradient"])
def test_a_file_may_differ_as_float32_does(method: str, pictures: Draw, tmp_path) -> None:
    images, module = pictures(2, 1), cancelling(method)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    save_model(export_graph(module).model, Metadata(LABELS, SPEC, module.outputs), tmp_path / "model.onnx")
    model = Model.load(tmp_path / "model.onnx", threads=1)
    answer = model.predict(images)
    with torch.no_grad():
        logits, maps, classes = module(torch.from_numpy(images), torch.tensor([-1]))
        _, others, _ = module(torch.from_numpy(images), (classes + 1) % CLASSES)
    error = metrics.map_error(maps.numpy(), answer.saliency_map).max()
    assert error > 1e-4, "the network does not show what it was made for"
    of_logits, of_maps = spread_of_rounding(module, images, classes.numpy())
    assert error <= of_maps
    assert (np.abs(answer.logits - logits.numpy()).max(axis=1) / np.ptp(logits.numpy(), axis=1)).max() <= of_logits
    assert metrics.map_error(maps.numpy(), others.numpy()).max() > 10 * of_maps
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    report, _ = validate(student=module, fp32=model, images=images, labels=LABELS, quick=True)
    (check,) = [check for check in report.checks if check.key == "fp32_map_error"]
    assert check.passed


@pytest.mark.parametrize("method", ["gradcam", "input-gradient"])
def test_in_a_sound_network_it_is_below_the_bound(method: str, pictures: Draw) -> None:
    images = pictures(2, 1)
    torch.manual_seed(0)
    module = deploy(randomised(HeadNet()), SPEC, method)
    of_logits, of_maps = spread_of_rounding(module, images, np.array([3, 4]))
    assert 0 < of_logits <= 2e-5
    assert 0 < of_maps <= 2e-5

"""A unit within rounding of its kink makes two right maps differ; a wrong map differs by more."""

import numpy as np
import pytest
import torch
from small_nets import CLASSES, SPEC, HeadNet, randomised
from test_graph import Draw

from kdedge_export.graph import deploy, export_graph, save_model
from kdedge_export.validate import metrics
from kdedge_export.validate.kinks import has_kinks, spread_at_kinks
from kdedge_export.validate.validation import validate
from kdedge_runtime import Metadata, Model

LABELS = tuple(map(str, range(CLASSES)))


def at_its_kinks(image: np.ndarray) -> torch.nn.Module:
    """A network of which one unit of each channel is zero for this picture, but for rounding."""
    torch.manual_seed(0)
    network = randomised(HeadNet())
    x = deploy(network, SPEC).normalise(torch.from_numpy(image))
    convolution, norm = network.features[0], network.features[1]
    channels = torch.arange(8)  # each elsewhere in the picture
    with torch.no_grad():
        for _ in range(3):  # the first time leaves the rounding of a large bias
            norm.bias -= norm(convolution(x))[0, channels, channels + 3, 2 * channels]
    return network


@pytest.mark.parametrize("method", ["input-gradient", "integrated-gradients", "smoothgrad"])
def test_a_graph_may_differ_by_what_pytorch_moves_at_its_kinks(method: str, pictures: Draw, tmp_path) -> None:
    images = pictures(1, 1)
    module = deploy(at_its_kinks(images), SPEC, method)
    save_model(export_graph(module).model, Metadata(LABELS, SPEC, module.outputs), tmp_path / "model.onnx")
    model = Model.load(tmp_path / "model.onnx", threads=1)
    answer = model.predict(images)
    with torch.no_grad():
        _, maps, classes = module(torch.from_numpy(images), torch.tensor([-1]))
        _, others, _ = module(torch.from_numpy(images), (classes + 1) % CLASSES)
    error = metrics.map_error(maps.numpy(), answer.saliency_map).max()
    spread = spread_at_kinks(module, images, classes.numpy())
    if method == "input-gradient":
        assert error > 1e-3, "the network does not show what it was made for"
    assert error <= max(spread, 1e-4)
    assert metrics.map_error(maps.numpy(), others.numpy()).max() > spread
    report, _ = validate(student=module, fp32=model, images=images, labels=LABELS, quick=True)
    (check,) = [check for check in report.checks if check.key == "fp32_map_error"]
    assert check.passed
    np.testing.assert_allclose(check.bound, spread if error > 1e-4 else 1e-4)


def test_nothing_is_allowed_where_nothing_jumps(pictures: Draw) -> None:
    images = pictures(2, 1)
    torch.manual_seed(0)
    network = randomised(HeadNet())
    assert not has_kinks(deploy(network, SPEC))
    network.features[2], network.features[5] = torch.nn.SiLU(), torch.nn.SiLU()
    module = deploy(network, SPEC, "input-gradient")
    assert has_kinks(module)
    assert 0 < spread_at_kinks(module, images, np.array([3, 4])) <= 1e-4

"""Test that exported saliency methods match PyTorch for any batch and class, and are deterministic."""

import numpy as np
import pytest
import torch
from map_checks import Draw
from small_nets import CLASSES, POSITIONS, SIDE, SPEC, TAILS, HeadNet, randomised, relative_error

from kdedge_export.saliency import METHODS
from kdedge_export.torch_export import export_graph, save_model, wrap_for_export
from kdedge_runtime import Metadata, Model

CLASSLESS = {"eigencam", "attention-rollout"}
FINE = {"input-gradient", "integrated-gradients", "smoothgrad"}
NETS = {"closed form": HeadNet, "class token": TAILS["class token"]}
ONLY_ON = {"cam": {"closed form"}, "attention-rollout": {"class token"}, "gradient-attention": {"class token"}}
ONLY_ON |= {"deeplift": set()}  # dense networks, in the test of tables
CASES = [
    pytest.param(method, net, marks=[pytest.mark.models] if net == "class token" else [])
    for method in METHODS
    for net in NETS
    if net in ONLY_ON.get(method, NETS)
]


@pytest.mark.parametrize(("method", "net"), CASES)
def test_exported_method_matches_pytorch(method: str, net: str, pictures: Draw, tmp_path) -> None:
    torch.manual_seed(0)
    module = wrap_for_export(randomised(NETS[net]()), SPEC, method)
    side = SIDE if method in FINE else POSITIONS
    assert (module.outputs.method, module.outputs.map_height, module.outputs.map_width) == (method, side, side)
    labels = tuple(map(str, range(CLASSES)))
    save_model(export_graph(module).model, Metadata(labels, SPEC, module.outputs), tmp_path / "model.onnx")
    model = Model.load(tmp_path / "model.onnx", threads=1)
    seen = []
    for count, seed in ((1, 1), (3, 2)):
        images = pictures(count, seed)
        for requested in (None, 0, 7):
            prediction = model.predict(images, requested)
            with torch.no_grad():
                logits, maps, classes = module(
                    torch.from_numpy(images), torch.tensor([-1 if requested is None else requested])
                )
            np.testing.assert_allclose(prediction.logits, logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
            np.testing.assert_array_equal(prediction.explained_class, classes)
            assert prediction.saliency_map.shape == (count, side, side)
            assert relative_error(torch.from_numpy(prediction.saliency_map), maps) <= 1e-4
            seen.append(prediction.saliency_map[0])
        np.testing.assert_array_equal(model.predict(images, 7).saliency_map, prediction.saliency_map)
    scale = np.abs(seen[1]).max()
    assert np.abs(seen[1] - seen[4]).max() > 0.05 * scale, "the map does not depend on the image"
    assert bool(np.abs(seen[1] - seen[2]).max() > 0.05 * scale) == (method not in CLASSLESS)

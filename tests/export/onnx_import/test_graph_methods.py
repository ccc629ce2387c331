"""Every activation-based method of an imported file matches the PyTorch implementation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_nets import AveragesTheLargest, FlattensItsMap, NormalisesThePooled, PoolsClasses, run, to_onnx
from onnx_toys import tensorflow_like
from small_nets import CHANNELS, NETS, POSITIONS, TAILS, inputs, randomised, relative_error
from torch import Tensor, nn

from kdedge_export.onnx_import import add_saliency
from kdedge_export.onnx_import.graph_methods import check_method
from kdedge_export.onnx_import.numpy_methods import map_by_definition
from kdedge_export.saliency import METHODS, make_explained
from kdedge_export.spatial_layout import SpatialLayout
from kdedge_runtime.errors import UsageError
from kdedge_runtime.saliency_methods import methods_of

TOLERANCE = 1e-4
POSITION_METHODS = [method for method in methods_of("onnx") if method != "reciprocam"]
MODELS: dict[str, Callable[[], nn.Module]] = {
    "pooled": NETS["linear"],
    "pooled, two layers": NormalisesThePooled,
    "flattened": FlattensItsMap,
    "pools classes": PoolsClasses,
    "class token": TAILS["class token"],
}


def by_torch(model: nn.Module, method: str, x: Tensor, classes: Tensor) -> Tensor:
    """Compute the map of the source model, whose methods are compared with pytorch-grad-cam elsewhere."""
    explained = make_explained(model, inputs(1, 9), method)
    with torch.no_grad():
        return explained.class_maps(explained(x), classes[:, None])[:, 0]


@pytest.mark.parametrize("method", POSITION_METHODS)
@pytest.mark.parametrize("net", MODELS)
def test_map_matches_the_source_model(tmp_path: Path, net: str, method: str) -> None:
    torch.manual_seed(0)
    model = randomised(MODELS[net]())
    done = add_saliency(to_onnx(model, tmp_path / "theirs.onnx"), tmp_path / "ours.onnx", method=method)
    assert done.outputs.method == method and done.is_map_confirmed
    for seed in (1, 2):
        x = inputs(3, seed)
        found = run(done.path, x)
        expected = by_torch(model, method, x, found["explained_class"])
        assert relative_error(found["saliency_map"], expected) <= TOLERANCE
        requested = run(done.path, x, class_index=np.array([3]))
        expected = by_torch(model, method, x, torch.full((3,), 3))
        assert relative_error(requested["saliency_map"], expected) <= TOLERANCE


@pytest.mark.parametrize("method", POSITION_METHODS)
def test_old_opsets_are_supported(tmp_path: Path, method: str) -> None:
    torch.manual_seed(0)
    model = randomised(FlattensItsMap())
    path = to_onnx(model, tmp_path / "theirs.onnx", opset_version=9)
    done = add_saliency(path, tmp_path / "ours.onnx", method=method)
    x = inputs(3, 1)
    found = run(done.path, x)
    expected = by_torch(model, method, x, found["explained_class"])
    assert relative_error(found["saliency_map"], expected) <= TOLERANCE


@pytest.mark.parametrize("method", POSITION_METHODS)
def test_channels_last_is_supported(tmp_path: Path, method: str) -> None:
    done = add_saliency(tensorflow_like(tmp_path / "theirs.onnx"), tmp_path / "ours.onnx", method=method)
    assert (done.outputs.map_height, done.outputs.map_width) == (POSITIONS, POSITIONS)
    assert done.is_map_confirmed


@pytest.mark.parametrize("method", POSITION_METHODS)
@pytest.mark.parametrize("kind", ["NCHW", "NHWC", "tokens"])
def test_numpy_definitions_match_the_torch_methods(kind: str, method: str) -> None:
    """Maps are compared with these before they are written."""
    rng = np.random.default_rng(0)
    features, gradient = rng.normal(size=(2, 1, CHANNELS, 5, 4))
    positions = METHODS[method].compute(torch.from_numpy(features), torch.from_numpy(gradient)[:, None])[0, 0].numpy()
    laid = {
        "NCHW": lambda x: x,
        "NHWC": lambda x: x.transpose(0, 2, 3, 1),
        "tokens": lambda x: x.reshape(1, CHANNELS, 20).transpose(0, 2, 1),
    }[kind]
    layout = SpatialLayout(kind, 5, 4)  # type: ignore[arg-type]
    found = map_by_definition(method, laid(features), laid(gradient), layout)
    np.testing.assert_allclose(found, positions, atol=1e-6 * np.abs(positions).max())


def test_methods_without_a_graph_definition_are_rejected() -> None:
    for name in methods_of("onnx"):
        check_method(name)
    with pytest.raises(UsageError, match="smoothgrad"):
        check_method("smoothgrad")


@pytest.mark.parametrize("net", ["pooled", "flattened", "class token"])
def test_default_method_is_hirescam(tmp_path: Path, net: str) -> None:
    torch.manual_seed(0)
    path = to_onnx(randomised(MODELS[net]()), tmp_path / "theirs.onnx")
    done = add_saliency(path, tmp_path / "ours.onnx")
    named = add_saliency(path, tmp_path / "named.onnx", method="hirescam")
    assert done.outputs == named.outputs
    assert done.outputs.method == "hirescam"


def test_eigencam_needs_no_derivative(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = to_onnx(randomised(AveragesTheLargest()), tmp_path / "theirs.onnx")
    done = add_saliency(path, tmp_path / "ours.onnx", method="eigencam")
    assert done.outputs.method == "eigencam" and done.no_derivative_of is None

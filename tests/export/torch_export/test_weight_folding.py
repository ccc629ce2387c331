"""Test that dense weights are stored once for the logits, the backward pass and the row of a class."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_nets import CHANNELS, CLASSES, Export
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from kdedge_export.torch_export import ExportableModel, export_graph, wrap_for_export
from kdedge_export.torch_export.weight_folding import fold_transposed_weights
from kdedge_runtime import ImageInput

aten = torch.ops.aten


class Differentiated(nn.Module):
    """Two dense layers, and the gradient of one class with respect to their input."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 5, bias=bias), nn.ReLU(), nn.Linear(5, 4, bias=bias))
        self.requires_grad_(False)

    def forward(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.requires_grad_()
            logits = self.layers(x)
            return logits.detach(), torch.autograd.grad(logits.gather(1, classes).sum(), x)[0]


def traced(function: Callable[..., object], *examples: Tensor) -> fx.GraphModule:
    return make_fx(function)(*examples)


def kinds(graph: fx.GraphModule) -> Counter[object]:
    return Counter(node.target for node in graph.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("bias", [True, False])
def test_gradient_through_dense_layers_needs_no_transposed_weight(bias: bool) -> None:
    torch.manual_seed(0)
    module, x, classes = Differentiated(bias=bias), torch.randn(3, 6), torch.tensor([[0], [3], [1]])
    graph = traced(module, x, classes)
    expected = module(x, classes)
    assert kinds(graph)[aten.t.default] > 0

    fold_transposed_weights(graph)
    graph.recompile()

    found = kinds(graph)
    assert found[aten.t.default] == found[aten.addmm.default] == 0
    assert (found[aten.linear.default], found[aten.embedding.default], found[aten.mm.default]) == (2, 1, 1)
    for one, other in zip(graph(x, classes), expected, strict=True):
        torch.testing.assert_close(one, other)


class OverTime(nn.Module):
    """Dense layer on a sequence with time as the first axis, so that no step is contiguous, and its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.requires_grad_()
            y = self.layer(x.transpose(0, 1))
            return y.detach(), torch.autograd.grad((y**2).sum(), x)[0]


def test_sequence_product_uses_one_weight() -> None:
    torch.manual_seed(0)
    module, x = OverTime(), torch.randn(3, 7, 6)
    graph = traced(module, x)
    assert kinds(graph)[aten.bmm.default] == 2, "PyTorch does not expand the weight"

    fold_transposed_weights(graph)
    graph.recompile()

    assert kinds(graph)[aten.bmm.default] == 0
    for one, other in zip(graph(x), module(x), strict=True):
        torch.testing.assert_close(one, other)


def test_batched_product_of_different_constants_is_unchanged() -> None:
    weights = nn.Parameter(torch.randn(4, 3, 2), requires_grad=False)
    graph = traced(lambda x: x.bmm(weights), torch.randn(4, 5, 3))
    before = kinds(graph)
    fold_transposed_weights(graph)
    assert kinds(graph) == before


def test_products_of_computed_tensors_are_unchanged() -> None:
    def multiply(left: Tensor, right: Tensor) -> Tensor:
        return left.mm(right.t())

    graph = traced(multiply, torch.randn(2, 3), torch.randn(4, 3))
    before = kinds(graph)
    fold_transposed_weights(graph)
    assert kinds(graph) == before


@pytest.mark.parametrize(
    ("name", "hidden", "features"), [("flattens", 24, 300), ("convolves after pooling", 24, CHANNELS)]
)
def test_exported_head_stores_each_weight_once(
    name: str, hidden: int, features: int, export: Callable[[str], Export]
) -> None:
    graph = export(name).graph.model.graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    matrices = {path: shape for path, shape in weights.items() if hidden in shape and np.prod(shape) > hidden}
    assert sorted(matrices.values()) == sorted([(CLASSES, hidden), (hidden, features)])
    readers = {node.op_type for node in graph.node if set(node.input) & set(matrices)}
    assert readers == {"Gemm", "MatMul", "Gather"}


def test_weights_are_named_after_modules(export: Callable[[str], Export]) -> None:
    explained = export("flattens")
    assert isinstance(explained.module, ExportableModel)
    weights = {f"explained.model.{name}" for name, _ in explained.module.explained.model.named_parameters()}
    stored = {tensor.name for tensor in explained.graph.model.graph.initializer}
    folded = {f"explained.model.features.{index}.{kind}" for index in (1, 4) for kind in ("weight", "bias")}
    assert weights - stored == folded  # of batch normalization


def test_single_dense_layer_over_positions_is_exported() -> None:
    body = (nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    net = nn.Sequential(*body, nn.Linear(64, CLASSES))
    graph = export_graph(wrap_for_export(net, ImageInput(32, 32, (0.5,) * 3, (0.25,) * 3))).model.graph
    assert {"logits", "saliency_map"} <= {output.name for output in graph.output}
    dense = [tensor.name for tensor in graph.initializer if set(tensor.dims) == {CLASSES, 64}]
    assert len(dense) == 1, "one weight for the logits and the map"

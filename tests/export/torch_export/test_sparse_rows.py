"""Test that gradients with few nonzero rows are computed for these rows only, with the same result."""

from collections.abc import Callable

import pytest
import torch
from small_nets import Export
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from kdedge_export.torch_export import ExportableModel
from kdedge_export.torch_export.autograd_trace import trace_with_gradients
from kdedge_export.torch_export.decompositions import DECOMPOSITIONS
from kdedge_export.torch_export.sparse_rows import KEEP_ROWS, RowSparseInterpreter

aten = torch.ops.aten
TOKENS, CHANNELS = 7, 6
ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "the first": lambda x: x[:, 0],
    "the last": lambda x: x[:, -1],
    "three adjacent rows": lambda x: x[:, 2:5],
    "two adjacent rows, separately": lambda x: x[:, 1] + 2 * x[:, 2],
    "two distant rows": lambda x: x[:, 1] - 3 * x[:, 4],
    "most": lambda x: x[:, 1:],
    "all": lambda x: x,
}


class Block(nn.Module):
    """Transformer block."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.gelu, *, tokens_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.activation, self.tokens_first = activation, tokens_first
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(CHANNELS) for _ in range(3))
        self.qkv, self.out = nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.up, self.down = nn.Linear(CHANNELS, 4 * CHANNELS), nn.Linear(4 * CHANNELS, CHANNELS)
        self.scale = nn.Parameter(torch.rand(CHANNELS) + 0.5)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[-1]
        y = self.norm1(x)
        if self.tokens_first:
            y = y.transpose(0, 1)
        parts = self.qkv(y).reshape(*y.shape[:2], 3, 2, channels // 2)
        q, k, v = parts.permute(2, 1, 3, 0, 4) if self.tokens_first else parts.permute(2, 0, 3, 1, 4)
        seen = ((q @ k.transpose(-2, -1)) / 1.7).softmax(-1) @ v
        seen = seen.permute(2, 0, 1, 3) if self.tokens_first else seen.transpose(1, 2)
        seen = self.out(seen.reshape(*seen.shape[:2], channels))
        x = x + (seen.transpose(0, 1) if self.tokens_first else seen) * self.scale
        return self.norm3(x + self.down(self.activation(self.up(self.norm2(x)))))


def gradient_graph(function: Callable[[Tensor], Tensor], x: Tensor) -> fx.GraphModule:
    """Return the traced gradient of the squared sum of a function's values."""

    def gradient(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.requires_grad_()
            return torch.autograd.grad((function(x) ** 2).sum(), x)[0]

    left = {key: value for key, value in DECOMPOSITIONS.items() if key not in KEEP_ROWS}
    return make_fx(gradient, decomposition_table=left)(x.clone())


def by_rows(graph: fx.GraphModule, x: Tensor) -> fx.GraphModule:
    return make_fx(RowSparseInterpreter(graph).run, decomposition_table=DECOMPOSITIONS)(x.clone())


def products(graph: fx.GraphModule) -> int:
    """Return the number of multiplications in all matrix products."""
    total = 0
    for node in graph.graph.nodes:
        if node.target in {aten.mm.default, aten.bmm.default, aten.addmm.default}:
            left = node.args[-2].meta["val"]
            total += left.numel() * node.meta["val"].shape[-1]
    return total


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("tokens_first", [False, True], ids=["images first", "tokens first"])
def test_gradient_is_the_same_for_all_rows(rows: str, tokens_first: bool) -> None:
    block, x = Block(tokens_first=tokens_first), torch.randn(2, TOKENS, CHANNELS)
    graph = gradient_graph(lambda x: ROWS[rows](block(x)), x)
    torch.testing.assert_close(by_rows(graph, x)(x), graph(x))


@pytest.mark.parametrize(
    "activation", [F.gelu, F.silu, F.hardswish, F.relu, F.tanh, F.mish], ids=lambda function: function.__name__
)
def test_gradient_is_the_same_for_all_activations(activation: Callable[[Tensor], Tensor]) -> None:
    block, x = Block(activation), torch.randn(2, TOKENS, CHANNELS)
    graph = gradient_graph(lambda x: block(x)[:, 0], x)
    torch.testing.assert_close(by_rows(graph, x)(x), graph(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.softmax(1)[:, 2],
        lambda x: x.cumsum(1)[:, 2],
        lambda x: (x.flatten(1)[:, :3] * 2).sin(),
        lambda x: torch.cat([x, x * 3], 1)[:, 5],
        lambda x: (x * x.mean(1, keepdim=True))[:, 0],
        lambda x: (x @ x.transpose(1, 2))[:, :, 0],
        lambda x: F.layer_norm(x, x.shape[1:])[:, 0],
        lambda x: x.reshape(-1, 3)[1:2] ** 3,
        lambda x: x.transpose(0, 1).reshape(TOKENS, -1)[0],
        lambda x: x[:, 1:3, 2],
        lambda x: x.unsqueeze(0)[:, :, 3].exp(),
    ],
)
def test_operations_across_rows_get_the_full_gradient(function: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, TOKENS, CHANNELS)
    graph = gradient_graph(function, x)
    torch.testing.assert_close(by_rows(graph, x)(x), graph(x))


@pytest.mark.parametrize("tokens_first", [False, True], ids=["images first", "tokens first"])
def test_class_token_gradient_computes_all_rows_only_for_attention_inputs(tokens_first: bool) -> None:
    block, x = Block(tokens_first=tokens_first), torch.randn(2, TOKENS, CHANNELS)
    forward = products(make_fx(block)(x))
    graph = gradient_graph(lambda x: block(x)[:, 0], x)
    way_back = products(by_rows(graph, x)) - forward
    projections = 2 * TOKENS * 3 * CHANNELS * CHANNELS
    mlp, out = 2 * 2 * 4 * CHANNELS * CHANNELS, 2 * CHANNELS * CHANNELS
    attention = 4 * 2 * TOKENS * CHANNELS
    assert way_back == projections + mlp + out + attention, "each product computes more than one row"


def test_exported_class_token_gradient_uses_its_row(export: Callable[[str], Export]) -> None:
    deployed = export("class token").module
    assert isinstance(deployed, ExportableModel)
    side = deployed.spec.height
    image, top = torch.zeros(2, side, side, 3, dtype=torch.uint8), torch.tensor([-1])
    with torch.no_grad():
        graph = trace_with_gradients(deployed, deployed, image=image, class_index=top)
    targets = [node.target for node in graph.graph.nodes]
    assert aten.select_scatter.default not in targets, "zeros of the other tokens are materialized"

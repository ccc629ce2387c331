"""Layer attribution of token-based networks, compared with PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from exported_nets import to_onnx
from small_nets import CLASSES, SIDE, inputs, randomised
from torch import Tensor, nn

from kdedge_export.inspection.layer_attribution import attribute_layers, last_layer

Planes = Callable[[Tensor], Tensor]
"""Function from a layer's output for one image to `[C, h, w]`."""
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Stage:
    """Expected stage of a network."""

    layer: str
    laid_out: Planes
    beside: int = 0
    """Number of prefix tokens."""
    attention: int | None = None
    """Number of the attention that reads it."""


@dataclass(frozen=True)
class Net:
    """Network with its expected stages, coarse to fine."""

    module: nn.Module
    stages: tuple[Stage, ...]


def tokens(side: int, beside: int = 0) -> Planes:
    return lambda value: value[0, beside:].T.reshape(-1, side, side)


def planes(value: Tensor) -> Tensor:
    return value[0]


def merged(value: Tensor) -> Tensor:
    """Rearrange Swin's merged patches: the channels of four positions, column by column."""
    positions = value[0].unflatten(2, (2, 2, -1))  # right, below, channel
    return positions.permute(4, 0, 3, 1, 2).reshape(positions.shape[4], 2 * len(positions), 2 * len(positions))


def lively(module: nn.Module) -> nn.Module:
    """Set norms with scale and shift, and a nonzero head, as after training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(0, 0.3, generator=generator)
            elif isinstance(layer, nn.Linear):
                layer.weight.normal_(0, 1.5 / layer.in_features**0.5, generator=generator)
    return randomised(module)


def class_token() -> Net:
    """Return a ViT; after its last block only the class token counts, so the last stage is the input of this block."""
    net = torchvision.models.VisionTransformer(
        image_size=SIDE, patch_size=4, num_layers=7, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=CLASSES
    )
    nn.init.normal_(net.encoder.pos_embedding)
    nn.init.normal_(net.class_token)
    stages = (Stage(f"encoder.layers.encoder_layer_{at}.ln_1", tokens(8, 1), 1, at + 1) for at in (6, 4, 3, 1, 0))
    return Net(net, tuple(stages))


def mean_of_tokens() -> Net:
    """Return a network that averages all tokens, two of them registers."""
    timm = pytest.importorskip("timm")
    net = timm.models.VisionTransformer(
        img_size=SIDE,
        patch_size=4,
        num_classes=CLASSES,
        global_pool="avg",
        embed_dim=16,
        depth=3,
        num_heads=2,
        class_token=False,
        reg_tokens=2,
        no_embed_class=True,
    )
    last = Stage("norm", tokens(8, 2))  # without the registers
    return Net(net, (last, *(Stage(f"blocks.{at}.norm1", tokens(8, 2), 2, at + 1) for at in (2, 1, 0))))


def shifted_windows() -> Net:
    """Return a Swin: windows of 4 × 4 positions, shifted in every second block, and merged patches."""
    net = torchvision.models.SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=[4, 4], num_classes=CLASSES
    )
    return Net(net, (Stage("permute", planes), Stage("features.2.norm", merged)))


def grids_and_blocks() -> Net:
    """Return a MaxViT: convolutions, block attention and grid attention."""
    net = torchvision.models.MaxVit(
        input_size=(64, 64),
        stem_channels=8,
        partition_size=2,
        block_channels=[8, 16],
        block_layers=[1, 1],
        head_dim=4,
        stochastic_depth_prob=0.0,
        num_classes=CLASSES,
    )
    return Net(net, (Stage("blocks.1", planes), Stage("blocks.0", planes), Stage("stem", planes)))


class Attends(nn.Module):
    """Attention on normalized input, with a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        return x + self.attention(normed, normed, normed, need_weights=False)[0]


class Hybrid(nn.Module):
    """Convolutions, and attention with a class token at the coarsest resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.patches, self.token = nn.Conv2d(8, 12, 2, 2), nn.Parameter(torch.randn(1, 1, 12))
        self.blocks = nn.Sequential(Attends(), Attends())
        self.norm, self.fc = nn.LayerNorm(12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(self.stem(x)).flatten(2).mT
        tokens = self.blocks(torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1))
        return self.fc(self.norm(tokens)[:, 0])


def hybrid() -> Net:
    """Return the hybrid; its last tokens on every path are normalized, so an earlier tensor is the last stage."""
    return Net(Hybrid(), (Stage("blocks.1.norm", tokens(8, 1), 1, 2), Stage("stem", planes)))


class Mixer(nn.Module):
    """MLP-Mixer: dense layers over the tokens of a channel, and over the channels of a token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(3 * 4 * 4, 12)
        self.over_tokens, self.over_channels = nn.Linear(64, 64), nn.Linear(12, 12)
        self.norm, self.fc = nn.LayerNorm(12), nn.Linear(12, CLASSES)
        self.embedded, self.mixed, self.done = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        cut = x.reshape(-1, 3, 8, 4, 8, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 64, 48)
        x = self.embedded(self.patches(cut))
        x = self.mixed(x + self.over_tokens(x.mT).mT)
        x = self.done(x + nn.functional.gelu(self.over_channels(x), approximate="tanh"))
        return self.fc(self.norm(x).mean(1))


def mixer() -> Net:
    """Return the mixer; `done` is normalized token by token, so that its gradient × activation is zero."""
    return Net(Mixer(), tuple(Stage(name, tokens(8)) for name in ("norm", "mixed", "embedded")))


NETS = {
    "class token": class_token,
    "mean of tokens": mean_of_tokens,
    "shifted windows": shifted_windows,
    "grids and blocks": grids_and_blocks,
    "hybrid": hybrid,
    "mixer": mixer,
}


@pytest.mark.parametrize("name", NETS)
def test_each_stage_is_gradient_times_activation(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]()
    model, side = lively(net.module), 64 if name == "grids and blocks" else SIDE
    path = to_onnx(model, tmp_path / "net.onnx", side, dynamo=name in ("mean of tokens", "hybrid", "mixer"))
    for seed, class_index in ((1, None), (2, 4)):
        x = inputs(1, seed, side)
        found = attribute_layers(onnx.load(path), {"input": x.numpy()}, "net", class_index=class_index)
        assert last_layer(onnx.load(path), {"input": x.numpy()}, "net").tensor == found.stages[0].tensor
        assert [stage.way for stage in found.stages] == ["gradient × activation"] * len(net.stages)
        for stage, known, (evidence, beside) in zip(
            found.stages, net.stages, by_autograd(net, x, class_index), strict=True
        ):
            assert (stage.attention or (None, 0))[0] == known.attention
            assert stage.positions == tuple(evidence.shape[1:])
            assert_close(stage.evidence.saliency_map, evidence.sum(0))
            by_channel = evidence.sum((1, 2))
            shares = (by_channel.abs() / by_channel.abs().sum()).sort(descending=True)
            assert_close(stage.evidence.shares, shares.values)
            assert_close(stage.evidence.channels[0].saliency_map, evidence[shares.indices[0]])
            whole = beside.abs().sum() + evidence.sum(0).abs().sum()
            assert (stage.evidence.beside is not None) == (known.beside > 0)
            assert (stage.evidence.beside or 0.0) == pytest.approx(float(beside.abs().sum() / whole), rel=1e-3)


def by_autograd(net: Net, x: Tensor, class_index: int | None) -> list[tuple[Tensor, Tensor]]:
    """Return the evidence `[C, h, w]` of the positions, and of each prefix token, at each stage."""
    held: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _given, result: held.update({name: result})

    hooks = [net.module.get_submodule(stage.layer).register_forward_hook(keep(stage.layer)) for stage in net.stages]
    logits = net.module(x.clone().requires_grad_())
    for hook in hooks:
        hook.remove()
    target = logits[0].argmax() if class_index is None else class_index
    found = []
    for stage in net.stages:
        (slope,) = torch.autograd.grad(logits[0, target], held[stage.layer], retain_graph=True)
        evidence = (held[stage.layer] * slope).detach()
        found.append((stage.laid_out(evidence), evidence[0, : stage.beside].sum(-1)))
    return found


def assert_close(measured: np.ndarray, expected: Tensor) -> None:
    wanted = expected.numpy()
    assert measured.shape == wanted.shape
    assert np.abs(measured - wanted).max() <= TOLERANCE * np.abs(wanted).max()

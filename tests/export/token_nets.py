"""Small token-based networks, with the layer of their map and the order of its positions."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from small_nets import CLASSES, SIDE
from torch import Tensor, nn

WIDTH, HEADS, PATCH = 24, 2, 8
POSITIONS = SIDE // PATCH
Planes = Callable[[Tensor], Tensor]


class Block(nn.Module):
    """Attention and dense layers with pre-normalization; the attention in plain products."""

    def __init__(self, *, fused: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH) if fused else nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attention(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], HEADS, WIDTH // HEADS)
        if isinstance(self.qkv, nn.Linear):
            whole = self.qkv(x).reshape(shape[0], shape[1], 3, *shape[2:])
            query, key, value = whole.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            query, key, value = (layer(x).reshape(shape).transpose(1, 2) for layer in self.qkv)
        weights = (query @ key.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        return self.proj((weights @ value).transpose(1, 2).reshape(x.shape))


class MaskedBlock(Block):
    """Attention by PyTorch's own function with a mask, whose softmax the default exporter guards against NaN."""

    def attention(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1], HEADS, WIDTH // HEADS)
        query, key, value = (part.reshape(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mask = x.new_zeros(x.shape[1], x.shape[1])
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).reshape(x.shape))


class Transformer(nn.Module):
    """Patch tokens after class and register tokens, through blocks, to a norm and a dense layer."""

    def __init__(
        self, prefix: int, head: str = "first", *, fused: bool = True, patch: tuple[int, int] = (PATCH, PATCH)
    ):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, patch, patch)
        self.prefix, self.head = nn.Parameter(torch.randn(1, prefix, WIDTH)), head
        positions = (SIDE // patch[0]) * (SIDE // patch[1])
        self.position = nn.Parameter(torch.randn(1, prefix + positions, WIDTH))
        self.blocks = nn.Sequential(*(Block(fused=fused) for _ in range(2)))
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)
        self.other = nn.Linear(WIDTH, CLASSES)

    def tokens(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        if not self.prefix.shape[1]:
            return patches + self.position
        return torch.cat([self.prefix.expand(x.shape[0], -1, -1), patches], 1) + self.position

    def classified(self, tokens: Tensor) -> Tensor:
        prefix = self.prefix.shape[1]
        if self.head == "mean":
            return self.last(self.norm(tokens)[:, prefix:].mean(1))
        if self.head == "norm of the mean":
            return self.last(self.norm(tokens[:, prefix:].mean(1)))
        if self.head == "channels first":
            return self.last(torch.flatten(nn.functional.adaptive_avg_pool1d(self.norm(tokens).transpose(1, 2), 1), 1))
        tokens = self.norm(tokens)
        if self.head == "two":
            return (self.last(tokens[:, 0]) + self.other(tokens[:, 1])) / 2
        return self.last(tokens[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        return self.classified(self.blocks(self.tokens(x)))


class WithoutPositions(Transformer):
    """Tokens without position embeddings."""

    def tokens(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.prefix.expand(x.shape[0], -1, -1), patches], 1) if self.prefix.shape[1] else patches


class Masked(Transformer):
    """Transformer with an empty mask, as Hugging Face's transformers are traced."""

    def __init__(self, prefix: int) -> None:
        super().__init__(prefix)
        self.blocks = nn.Sequential(MaskedBlock(), MaskedBlock())


class CutsByMoving(Transformer):
    """Patches cut by reshaping instead of a convolution, followed by a dense layer."""

    def __init__(self, prefix: int) -> None:
        super().__init__(prefix)
        self.dense = nn.Linear(3 * PATCH**2, WIDTH)

    def tokens(self, x: Tensor) -> Tensor:
        parts = x.reshape(-1, 3, POSITIONS, PATCH, POSITIONS, PATCH).permute(0, 2, 4, 3, 5, 1)
        patches = self.dense(parts.reshape(-1, POSITIONS**2, 3 * PATCH**2))
        return torch.cat([self.prefix.expand(x.shape[0], -1, -1), patches], 1) + self.position


class MergesPatches(nn.Module):
    """Swin-like: four merged channels-last positions, and their tokens; no tensor has that resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.merge = nn.Conv2d(3, 6, PATCH // 2, PATCH // 2), nn.Linear(24, WIDTH)
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.patches(x).permute(0, 2, 3, 1)
        corners = [rows[:, down::2, right::2] for down in (0, 1) for right in (0, 1)]
        return self.last(self.norm(self.merge(torch.cat(corners, -1).flatten(1, 2)).tanh()).mean(1))


class AsManyChannels(nn.Module):
    """Network with as many channels as positions, which shapes cannot distinguish."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, POSITIONS**2, PATCH, PATCH), nn.LayerNorm(POSITIONS**2)
        self.last = nn.Linear(POSITIONS**2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2).tanh())
        return self.last(torch.flatten(nn.functional.adaptive_avg_pool1d(tokens.transpose(1, 2), 1), 1))


class TokensOfGrid(nn.Module):
    """Swin-like: channels-last positions, normalized, then averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, WIDTH, PATCH, PATCH), nn.LayerNorm(WIDTH)
        self.mix, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        positions = self.patches(x).permute(0, 2, 3, 1)
        return self.last(self.norm(positions + self.mix(positions).tanh()).mean((1, 2)))


class LooksFromAToken(nn.Module):
    """SigLIP-like: a learned query attends to all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer(0)
        self.query = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.keys, self.values, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    @property
    def norm(self) -> nn.Module:
        return self.body.norm

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.body.blocks(self.body.tokens(x)))
        query = self.query.expand(x.shape[0], -1, -1)
        weights = (query @ self.keys(tokens).transpose(1, 2) / WIDTH**0.5).softmax(-1)
        return self.last((weights @ self.values(tokens))[:, 0])


def random(make: Callable[[], nn.Module], std: float | None = 0.4) -> nn.Module:
    """Return a model in evaluation mode, with nontrivial norms and a nonzero head.

    Weights of dense layers have the standard deviation `std`; None keeps those that are not zero.
    """
    torch.manual_seed(0)
    model = make()
    for name, parameter in model.named_parameters():
        if "gamma" in name:  # of layers initialized to nearly zero
            nn.init.uniform_(parameter, 0.5, 1.5)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
        if isinstance(module, nn.Linear) and (std is not None or not module.weight.any()):
            nn.init.normal_(module.weight, std=std or 0.05)
    return model.eval()


def planes(prefix: int, height: int = POSITIONS) -> Planes:
    """Return a function that rearranges tokens to `[N, C, h, w]`."""
    return lambda tokens: tokens[:, prefix:].transpose(1, 2).unflatten(2, (height, -1))


def rows_first(positions: Tensor) -> Tensor:
    return positions.permute(0, 3, 1, 2)


def torchvision_vit() -> nn.Module:
    """Return a ViT with `nn.MultiheadAttention`, whose tokens come before the batch."""
    model = torchvision.models.VisionTransformer(SIDE, PATCH, 2, HEADS, WIDTH, 32, num_classes=CLASSES)
    nn.init.normal_(model.encoder.pos_embedding)
    return model


Case = tuple[Callable[[], nn.Module], str, Planes]
NETS: dict[str, Case] = {
    "class token": (lambda: Transformer(1), "blocks.1.norm1", planes(1)),
    "separate queries, keys and values": (lambda: Transformer(1, fused=False), "blocks.1.norm1", planes(1)),
    "attention mask": (lambda: Masked(1), "blocks.1.norm1", planes(1)),
    "distillation token": (lambda: Transformer(2, "two"), "blocks.1.norm1", planes(2)),
    "registers": (lambda: Transformer(5), "blocks.1.norm1", planes(5)),
    "non-square grid": (lambda: Transformer(1, patch=(4, 8)), "blocks.1.norm1", planes(1, 8)),
    "mean of the image tokens": (lambda: Transformer(1, "mean"), "norm", planes(1)),
    "norm after the mean": (lambda: Transformer(1, "norm of the mean"), "blocks", planes(1)),
    "mean without prefix tokens": (lambda: Transformer(0, "mean"), "norm", planes(0)),
    "mean with channels first": (lambda: Transformer(0, "channels first"), "norm", planes(0)),
    "learned query": (LooksFromAToken, "norm", planes(0)),
    "as many channels as positions": (AsManyChannels, "norm", planes(0)),
    "patches by reshaping": (lambda: CutsByMoving(1), "blocks.1.norm1", planes(1)),
    "rows of positions": (TokensOfGrid, "norm", rows_first),
    "torchvision's": (torchvision_vit, "encoder.layers.encoder_layer_1.ln_1", planes(1)),
}
EXPORTERS = pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript exporter", "dynamo exporter"])

"""Small flax networks in the usual style, exported by jax2onnx; see `foreign_nets`.

If `delta` is given, it is added to the target features, which are returned too: its gradient is that of the features.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from foreign_nets import CLASSES, HALF, SIDE_PX, TINY_PX, pictures, save
from jax2onnx import to_onnx


class Block(nnx.Module):  # type: ignore[misc]
    """Two convolutions with a shortcut."""

    def __init__(self, inward: int, outward: int, stride: int, rngs: Any) -> None:
        more: dict[str, Any] = {"use_bias": False, "rngs": rngs}
        self.one = nnx.Conv(inward, outward, (3, 3), strides=stride, **more)
        self.two = nnx.Conv(outward, outward, (3, 3), **more)
        self.norms = nnx.List([nnx.BatchNorm(outward, rngs=rngs) for _ in range(3)])
        self.short = nnx.Conv(inward, outward, (1, 1), strides=stride, **more)

    def __call__(self, x: Any) -> Any:
        y = nnx.relu(self.norms[0](self.one(x)))
        return nnx.relu(self.norms[1](self.two(y)) + self.norms[2](self.short(x)))


class ResNet(nnx.Module):  # type: ignore[misc]
    """Three blocks, average pooling and one dense layer."""

    def __init__(self) -> None:
        self.side, rngs = SIDE_PX, nnx.Rngs(0)
        self.stem = nnx.Conv(3, 16, (7, 7), strides=2, rngs=rngs)
        self.blocks = nnx.List([Block(16, 16, 1, rngs), Block(16, 32, 2, rngs), Block(32, 64, 2, rngs)])
        self.head = nnx.Linear(64, CLASSES, rngs=rngs)

    def __call__(self, x: Any, delta: Any = None) -> Any:
        x = nnx.max_pool(nnx.relu(self.stem(x)), window_shape=(3, 3), strides=(2, 2), padding="SAME")
        for block in self.blocks:
            x = block(x)
        y = self.head(jnp.mean(x if delta is None else x + delta, axis=(1, 2)))
        return y if delta is None else (y, x)


class Layer(nnx.Module):  # type: ignore[misc]
    """Pre-norm transformer layer."""

    def __init__(self, width: int, rngs: Any) -> None:
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Any, delta: Any = None) -> Any:
        target = self.norms[0](x)
        x = x + self.attention(target if delta is None else target + delta)
        x = x + self.down(nnx.gelu(self.up(self.norms[1](x))))
        return x if delta is None else (x, target)


class ViT(nnx.Module):  # type: ignore[misc]
    """Vision transformer; its target features are the input of the last attention."""

    def __init__(self, width: int = 64, depth: int = 3, patch: int = 16, side: int = SIDE_PX) -> None:
        self.side, rngs = side, nnx.Rngs(0)
        self.patches = nnx.Conv(3, width, (patch, patch), strides=patch, padding="VALID", rngs=rngs)
        self.token = nnx.Param(jax.random.normal(rngs.params(), (1, 1, width)))
        count = (side // patch) ** 2 + len(self.token[...])
        self.places = nnx.Param(0.1 * jax.random.normal(rngs.params(), (1, count, width)))
        self.layers = nnx.List([Layer(width, rngs) for _ in range(depth)])
        self.norm, self.head = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x: Any, delta: Any = None) -> Any:
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = jnp.concatenate([jnp.tile(self.token[...], (x.shape[0], 1, 1)), x], axis=1) + self.places[...]
        for layer in self.layers[:-1]:
            x = layer(x)
        if delta is None:
            return self.head(self.norm(self.layers[-1](x))[:, 0])
        x, target = self.layers[-1](x, delta)
        return self.head(self.norm(x)[:, 0]), target


class AveragedViT(ViT):
    """Vision transformer with mean pooling; its target features are the pooled tokens, without the first one."""

    def __call__(self, x: Any, delta: Any = None) -> Any:
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1]) + self.places[...][:, 1:]
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        y = self.head(jnp.mean(x if delta is None else x + delta, axis=1))
        return y if delta is None else (y, x)


NETS: dict[str, Any] = {
    "ResNet": ResNet,
    "ViT": ViT,
    "AveragedViT": AveragedViT,
    "tiny": partial(ViT, width=16, depth=1, patch=8, side=TINY_PX),
}


def make(names: list[str], folder: Path) -> Iterator[Path]:
    """Yield the files of the networks."""
    for name in names or [name for name in NETS if name != "tiny"]:
        net = NETS[name]()
        _draw(net)
        images = pictures(net.side)
        x = jnp.asarray(HALF(images))
        logits, target = net(x, jnp.zeros(()))
        slope = jax.grad(lambda delta, net=net, x=x: net(x, delta)[0].max(1).sum())(jnp.zeros_like(target))
        if target.ndim == 3:  # without the class token
            positions = round((target.shape[1] - target.shape[1] % 2) ** 0.5)
            target, slope = (
                item[:, -(positions**2) :].reshape(2, positions, positions, -1) for item in (target, slope)
            )
        saliency = (slope.mean((1, 2), keepdims=True) * target).sum(-1)
        stem = folder / f"jax.{name}"
        save(stem, images, np.asarray(logits), np.asarray(saliency), HALF)
        kinds = ((23, "B", False), (21, 1, False), (18, "B", True))
        for opset, batch, is_first in kinds[:1] if name == "tiny" else kinds:
            path = Path(f"{stem}.jax2onnx{opset}{'.fixed' * (batch == 1)}{'.nchw' * is_first}.onnx")
            shape, more = (batch, net.side, net.side, 3), {"inputs_as_nchw": [0]} if is_first else {}
            to_onnx(net, [shape], opset=opset, return_mode="file", output_path=str(path), **more)
            yield path


def _draw(net: Any) -> None:
    """Randomize parameters as in `foreign_keras`."""
    rng, norms = np.random.default_rng(1), [item for _, item in nnx.iter_graph(net) if hasattr(item, "epsilon")]
    net.train()
    for norm in norms:
        if isinstance(norm, nnx.BatchNorm):
            norm.momentum = 0.0
    net(jnp.asarray(HALF(pictures(net.side, seed=9))))
    net.eval()
    for norm in norms:
        shape = norm.scale[...].shape
        norm.scale[...] = norm.scale[...] * jnp.asarray(rng.uniform(0.7, 1.3, shape), jnp.float32)
        norm.bias[...] = norm.bias[...] + jnp.asarray(rng.normal(scale=0.1, size=shape), jnp.float32)

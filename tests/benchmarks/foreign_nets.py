"""Shared parts of networks of other frameworks: images, preprocessing, and reference results.

    keras/bin/python  tests/benchmarks/foreign_nets.py keras  FOLDER [NETWORK ...]
    paddle/bin/python tests/benchmarks/foreign_nets.py paddle FOLDER [NETWORK ...]
    jax/bin/python    tests/benchmarks/foreign_nets.py jax    FOLDER [NETWORK ...]

Each network becomes `FOLDER/FRAMEWORK.NETWORK.npz` and, for each converter, `FOLDER/FRAMEWORK.NETWORK.CONVERTER.onnx`.
The first holds two images, their preprocessing, and the framework's own results: logits, and Grad-CAM before its ReLU
at the last features, for the top class, by automatic differentiation. Weights are random and seeded, including values
that frameworks initialize to zero or one (statistics, scales of branches).
"""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["CLASSES", "SIDE_PX", "TINY_PX", "Array", "Front", "pictures", "save"]

CLASSES, SIDE_PX, TINY_PX = 20, 128, 32
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Front:
    """Preprocessing of a network, as defined by its framework and as options of kdedge."""

    mean: str
    std: str
    bgr: bool = False

    def __call__(self, images: Array) -> Array:
        """Compute `(pixel / 255 − mean) / std` of uint8 `[N, H, W, 3]`, as float32."""
        mean, std = (np.array([_number(part) for part in text.split(",")]) for text in (self.mean, self.std))
        x = (images / 255.0 - mean) / std
        return np.ascontiguousarray(x[..., ::-1] if self.bgr else x).astype(np.float32)


def _number(text: str) -> float:
    over, _, under = text.partition("/")
    return float(over) / float(under or 1)


TORCH = Front("0.485,0.456,0.406", "0.229,0.224,0.225")
HALF = Front("0.5", "0.5")
RAW = Front("0", "1/255")
CAFFE = Front("0.48502,0.45796,0.40760", "1/255", bgr=True)


def pictures(side: int = SIDE_PX, seed: int = 0) -> Array:
    """Generate two images with coarse structure, uint8 `[2, H, W, 3]`."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(2, 8, 8, 3)).repeat(-(-side // 8), 1).repeat(-(-side // 8), 2)[:, :side, :side]
    return np.clip(128 + 60 * coarse + 15 * rng.normal(size=coarse.shape), 0, 255).astype(np.uint8)


def save(stem: Path, images: Array, logits: Array, saliency: Array, front: Front) -> None:
    """Save the reference results of a network next to its files."""
    known: dict[str, Any] = {"mean": front.mean, "std": front.std, "bgr": front.bgr}
    np.savez_compressed(f"{stem}.npz", images=images, logits=logits, map=saliency, **known)


if __name__ == "__main__":
    framework, folder, *names = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for made in importlib.import_module(f"foreign_{framework}").make(names, Path(folder)):
        print(made, f"{made.stat().st_size / 1e6:.2f} MB", flush=True)

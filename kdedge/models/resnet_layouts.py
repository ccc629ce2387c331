"""Layouts of small residual networks: those of the distillation literature, and narrow ones for small devices.

- `resnet8` … `resnet110`: He et al., Deep Residual Learning, CVPR 2016, §4.2, with parameter-free shortcuts (option A).
- `resnet8x4`, `resnet32x4`: the wide pair of CRD (Tian et al., ICLR 2020), with projection shortcuts.
- `resnet10w16`, `resnet10w8`: one block per stage at a quarter and an eighth of ResNet-18's width; 0.31 M and 0.08 M
  parameters, output stride 8.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["RESNETS", "ResNetLayout"]


@dataclass(frozen=True)
class ResNetLayout:
    """Layout of a small residual network."""

    stem: int
    widths: tuple[int, ...]
    blocks: int
    """Residual blocks per stage."""
    shortcut: Literal["pad", "project"]


def _cifar(depth: int) -> ResNetLayout:
    return ResNetLayout(16, (16, 32, 64), (depth - 2) // 6, "pad")


RESNETS: dict[str, ResNetLayout] = {f"resnet{depth}": _cifar(depth) for depth in (8, 14, 20, 32, 44, 56, 110)} | {
    "resnet8x4": ResNetLayout(32, (64, 128, 256), 1, "project"),
    "resnet32x4": ResNetLayout(32, (64, 128, 256), 5, "project"),
    "resnet10w16": ResNetLayout(16, (16, 32, 64, 128), 1, "project"),
    "resnet10w8": ResNetLayout(8, (8, 16, 32, 64), 1, "project"),
}

"""Residual networks for small images: the ones of the distillation literature, and narrow ones for small machines.

- `resnet8` … `resnet110`: He et al., Deep Residual Learning, CVPR 2016, §4.2, with parameter-free shortcuts (option A).
- `resnet8x4`, `resnet32x4`: the wide pair of CRD (Tian et al., ICLR 2020), with projection shortcuts.
- `resnet10w16`, `resnet10w8`: one block a stage at a quarter and an eighth of ResNet-18's width; 0.31 M and 0.08 M
  parameters, output stride 8.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RESNETS", "SmallResNet"]


@dataclass(frozen=True)
class _Layout:
    stem: int
    widths: tuple[int, ...]
    blocks: int
    """Residual blocks a stage."""
    shortcut: Literal["pad", "project"]


def _cifar(depth: int) -> _Layout:
    return _Layout(16, (16, 32, 64), (depth - 2) // 6, "pad")


RESNETS: dict[str, _Layout] = {f"resnet{depth}": _cifar(depth) for depth in (8, 14, 20, 32, 44, 56, 110)} | {
    "resnet8x4": _Layout(32, (64, 128, 256), 1, "project"),
    "resnet32x4": _Layout(32, (64, 128, 256), 5, "project"),
    "resnet10w16": _Layout(16, (16, 32, 64, 128), 1, "project"),
    "resnet10w8": _Layout(8, (8, 16, 32, 64), 1, "project"),
}


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.project: nn.Module | None = None
        if shortcut == "project" and (stride != 1 or inputs != width):
            self.project = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        if self.project is not None:
            projected: Tensor = self.project(x)
            return projected
        missing = self.conv1.out_channels - self.conv1.in_channels
        if missing == 0:
            return x
        rows, columns = self.conv1.stride
        return F.pad(x[:, :, ::rows, ::columns], (0, 0, 0, 0, missing // 2, missing // 2))


class SmallResNet(nn.Module):
    """A residual network with a 3×3 stem of stride 1; each stage after the first halves the resolution."""

    def __init__(self, layout: _Layout, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, layout.stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(layout.stem)
        inputs = layout.stem
        self.stages: list[str] = []
        for index, width in enumerate(layout.widths):
            strides = [1 if index == 0 else 2] + [1] * (layout.blocks - 1)
            blocks = []
            for stride in strides:
                blocks.append(_Block(inputs, width, stride, layout.shortcut))
                inputs = width
            self.stages.append(f"layer{index + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[N, K]` of normalised images `[N, 3, H, W]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits

"""Residual networks for small images, with the layouts of `kdedge.models.resnet_layouts`."""

from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.models.resnet_layouts import ResNetLayout

__all__ = ["SmallResNet"]


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
    """Residual network with a 3×3 stem of stride 1; each stage after the first halves the resolution."""

    def __init__(self, layout: ResNetLayout, classes: int) -> None:
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
        """Compute logits `[N, K]` of normalized images `[N, 3, H, W]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits

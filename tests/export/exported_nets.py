"""Small networks exported with torch.onnx, and a runner for the files."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from small_nets import CHANNELS, CLASSES, SIDE, body
from torch import Tensor, nn

from kdedge_runtime.int8_arithmetic import use_exact_sums

TOLERANCE = 1e-4


def to_onnx(
    model: nn.Module, path: Path, side: int = SIDE, *, dynamo: bool = False, batch: int | None = None, **more: Any
) -> Path:
    """Export with torch.onnx; with a dynamic batch unless one is given."""
    example = (torch.randn(batch or 2, 3, side, side, dtype=next(model.parameters()).dtype),)
    if batch is not None:
        dynamic = {}
    elif dynamo:
        dynamic = {"dynamic_shapes": [{0: torch.export.Dim("batch")}]}
    else:
        dynamic = {"dynamic_axes": {"input": {0: "batch"}, "output": {0: "batch"}}}
    names = {"input_names": ["input"], "output_names": ["output"]}
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            extra = more | ({"external_data": False, "verbose": False} if dynamo else {})
            torch.onnx.export(model.eval(), example, path, dynamo=dynamo, **(names | dynamic | extra))
    finally:
        logging.disable(level)
    return path


def run(path: Path, x: Tensor, *, exact_sums: bool = False, **feeds: np.ndarray) -> dict[str, Tensor]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if exact_sums:
        use_exact_sums(options)
    session = ort.InferenceSession(path, options)
    names = [item.name for item in session.get_outputs()]
    values = session.run(names, {session.get_inputs()[0].name: x.numpy()} | feeds)
    return {name: torch.from_numpy(np.asarray(value)) for name, value in zip(names, values, strict=True)}


class FlattensItsMap(nn.Module):
    """VGG-like: max-pooling, and dense layers on all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(body(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Linear(CHANNELS * 16, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.features(x), 1))


class PoolsClasses(nn.Module):
    """SqueezeNet-like: a convolution computes one map per class, and these are pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.head = nn.Sequential(nn.Dropout(), nn.Conv2d(CHANNELS, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        nn.init.uniform_(self.head[1].bias, 0.5, 1.0)  # so that every class has positions above zero

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.head(self.features(x)), 1)


class NormalisesThePooled(nn.Module):
    """ConvNeXt-like: layer normalization between pooling and the dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.norm = nn.LayerNorm(CHANNELS)
        self.fc = nn.Linear(CHANNELS, CLASSES)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.features(x).mean((2, 3))))


class AveragesTheLargest(nn.Module):
    """Global pooling of the four largest positions: a head without a derivative rule."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.fc = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.features(x))

    def tail(self, features: Tensor) -> Tensor:
        return self.fc(features.flatten(2).topk(4).values.mean(2))

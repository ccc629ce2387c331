"""A small classifier as written by PyTorch's own exporter."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from training_toys import Outcome

SIDE, CLASSES = 32, 3
Command = Callable[..., Outcome]


class Small(nn.Module):
    """Typical small user classifier."""

    def __init__(self, *, averages_the_largest: bool = False) -> None:
        super().__init__()
        self.averages_the_largest = averages_the_largest
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU()
        )
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.features(x)
        return self.fc(
            features.flatten(2).topk(4).values.mean(2) if self.averages_the_largest else features.mean((2, 3))
        )


def exported_by_torch(model: nn.Module, path: Path) -> Path:
    dynamic = {"input": {0: "batch"}, "output": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.randn(2, 3, SIDE, SIDE),)
        names = {"input_names": ["input"], "output_names": ["output"]}
        torch.onnx.export(model.eval(), example, path, dynamo=False, dynamic_axes=dynamic, **names)
    return path

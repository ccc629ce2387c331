"""Export any PyTorch classifier with its saliency map, quantize the file, and validate both.

Needs `images.npy`, uint8 RGB `[N, 64, 64, 3]`, and `targets.npy`, int64 `[N]`.
"""

import numpy as np
import torch
from torch import nn

import kdedge_export
from kdedge_runtime import ImageInput, Model

torch.manual_seed(0)
module = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)),
)
labels = ("circle", "square", "star")
spec = ImageInput(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

exported = kdedge_export.export(module, spec, labels, "classifier.onnx", method="hirescam")
print(f"{exported.path}: maximum map error {exported.map_error:.1e}")

images, targets = np.load("images.npy"), np.load("targets.npy")
quantized = kdedge_export.quantize(exported.path, images)
assert quantized.path is not None  # None only if a goal is given and cannot be reached

models = kdedge_export.Models(
    student=kdedge_export.exportable(module, spec),
    fp32=Model.load(exported.path),
    converted={"int8": Model.load(quantized.path, exact_sums=True)},
)
report, _ = kdedge_export.validate(models, kdedge_export.ValidationSet(images, labels, targets), quick=True)
maps = report.comparisons["int8"].maps
assert maps is not None  # None only if a file has no map
print(f"int8 maps correlate with fp32 maps at {maps.pearson_mean:.3f}")

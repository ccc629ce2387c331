"""Distill a student in a training loop of your own, and export it with its saliency map.

Needs `images.npy`, uint8 RGB `[N, 64, 64, 3]`, and `targets.npy`, int64 `[N]`.
"""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import kdedge
import kdedge_export
from kdedge_runtime import ImageInput

torch.manual_seed(0)


def network(width: int) -> nn.Module:
    """Any classifier: this one has two convolutions, global average pooling and a dense layer."""
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)),
    )


teacher, student = network(64), network(8)  # in place of a trained teacher
images = torch.from_numpy(np.load("images.npy")).permute(0, 3, 1, 2).float() / 255
dataset = TensorDataset((images - 0.5) / 0.25, torch.from_numpy(np.load("targets.npy")))

criterion = kdedge.DistillationLoss(student, teacher, dataset[0][0][None], "ce:0.1,kd:0.9,mapall:20")
optimizer = torch.optim.AdamW(student.parameters(), lr=0.003)
for epoch in range(10):
    for batch, targets in DataLoader(dataset, batch_size=12, shuffle=True):
        output = criterion(batch, targets)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.3f}" for name, value in output.terms.items()))

spec = ImageInput(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
exported = kdedge_export.export(student.eval(), spec, ("circle", "square", "star"), "student.onnx")
print(f"{exported.path}: logits and map within {exported.map_error:.1e} of PyTorch")

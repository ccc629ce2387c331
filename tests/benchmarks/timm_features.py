"""Pooled features of a network as timm computes them, without code of kdedge besides the description of its input."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge_runtime.util.arrays import Floats, Pixels

if TYPE_CHECKING:
    from kdedge_runtime.modalities.image import ImageInput

_BATCH = 64


def load_features(name: str, weights: Path) -> "tuple[Callable[[Pixels], Floats], ImageInput]":
    """Return the function from images to pooled features `[N, D]` of a network, and the network's input.

    Args:
        name: network, such as `timm:tf_efficientnet_lite0`.
        weights: `.safetensors` file for ImageNet's 1000 classes.
    """
    import numpy as np
    import timm
    import torch
    from safetensors.torch import load_file

    from kdedge.models.model_registry import pretrained_input

    network = timm.create_model(name.removeprefix("timm:"), num_classes=1000)
    network.load_state_dict(load_file(weights))
    network.eval().reset_classifier(0)
    spec = pretrained_input(name)
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))

    def features(pixels: Pixels) -> Floats:
        parts = []
        for start in range(0, len(pixels), _BATCH):
            batch = np.ascontiguousarray(pixels[start : start + _BATCH])
            planes = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
            with torch.no_grad():
                parts.append(network((planes - mean) / std).numpy())
        return np.concatenate(parts)

    return features, spec

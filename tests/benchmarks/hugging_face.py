"""Small image classifiers of Hugging Face's transformers with random weights; no files are downloaded."""

from typing import Any

from torch import nn

__all__ = ["CLASSIFIERS", "classifier", "side_of"]

_SIDE = 64
"""Default image size in px."""
_VIT = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96, "patch_size": 8}
_BEIT = _VIT | {"use_relative_position_bias": True, "use_mean_pooling": True}
_SWIN = {"embed_dim": 24, "depths": [2, 2, 2], "num_heads": [2, 2, 4], "window_size": 4, "patch_size": 4}
_STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
_PYRAMID = {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 3, 4]}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "ViT": _VIT,
    "DeiT": _VIT,
    "Dinov2": {**_VIT, "mlp_ratio": 2},
    "Dinov2WithRegisters": {**_VIT, "mlp_ratio": 2},
    "ViTMSN": _VIT,
    "IJepa": _VIT,
    "Siglip": {"vision_config": {**_VIT, "image_size": _SIDE}},
    "CLIP": {"vision_config": {**_VIT, "image_size": _SIDE}},
    "Beit": _BEIT,
    "Data2VecVision": _BEIT,
    "Swin": _SWIN,
    "Swinv2": _SWIN,
    "ConvNext": _STAGES,
    "ConvNextV2": _STAGES,
    "ResNet": {**_STAGES, "embedding_size": 16, "layer_type": "basic"},
    "RegNet": {**_STAGES, "embedding_size": 16, "groups_width": 8},
    "Bit": {**_STAGES, "embedding_size": 16, "num_groups": 8, "hidden_sizes": [32, 64, 96, 128]},
    "MobileNetV1": {"depth_multiplier": 0.25},
    "MobileNetV2": {"depth_multiplier": 0.35},
    "EfficientNet": {"width_coefficient": 0.5, "depth_coefficient": 0.3, "hidden_dim": 640},
    "MobileViT": {"hidden_sizes": [24, 36, 48], "neck_hidden_sizes": [8, 16, 24, 32, 40, 64, 96]},
    "MobileViTV2": {"width_multiplier": 0.25},
    "Levit": {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1], "key_dim": [8] * 3},
    "PoolFormer": {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]},
    "Pvt": _PYRAMID,
    "PvtV2": _PYRAMID,
    "Segformer": _PYRAMID,
    "Cvt": {"embed_dim": [16, 32, 48], "depth": [1, 2, 3], "num_heads": [1, 2, 3]},
    "FocalNet": {"embed_dim": 24, "depths": [1, 1, 1, 1]},
    "SwiftFormer": {"embed_dims": [16, 24, 32, 48], "depths": [1, 1, 1, 1]},
    "Hiera": {"embed_dim": 24, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "image_size": [_SIDE, _SIDE]},
}
"""Changes to each published configuration."""


def side_of(name: str) -> int:
    """Return the image size of a network in px."""
    return 128 if name == "Levit" else _SIDE  # smaller images leave it a single token at the end


def classifier(name: str, classes: int) -> nn.Module:
    """Build `NAMEForImageClassification`, which takes `[N, 3, side, side]` and returns an output with `logits`."""
    import transformers  # type: ignore[import-not-found]

    changed = {"image_size": side_of(name)} | CLASSIFIERS[name] | {"num_labels": classes}
    if "vision_config" in changed:
        del changed["image_size"]
    config = getattr(transformers, f"{name}Config")(**changed)
    model: nn.Module = getattr(transformers, f"{name}ForImageClassification")(config)
    return model

"""Tiny networks of OpenCLIP, defined by its configuration files, with real checkpoints."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VISION = {
    "tiny-vit": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
    "tiny-rn": {"image_size": 128, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "tiny-coca": {
        "image_size": 32,
        "layers": 1,
        "width": 64,
        "head_width": 16,
        "patch_size": 8,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
}
"""A vision transformer with a class token, a residual network with attention pooling, and an image encoder of CoCa."""
_COCA = {
    "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {**TEXT, "context_length": 76, "attn_pooler_heads": 2},
    "custom_text": True,
}
TAG, REPOSITORY = "tiny_e1", "acme/tiny"


def define_networks(folder: Path) -> None:
    """Add the networks to those of OpenCLIP."""
    for name, vision in VISION.items():
        settings = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT} | (_COCA if name == "tiny-coca" else {})
        (folder / f"{name}.json").write_text(json.dumps(settings))
    open_clip.add_model_config(folder)


def network(name: str) -> nn.Module:
    """Build a network with random weights, the same on every call."""
    torch.manual_seed(0)
    model: nn.Module = open_clip.create_model(name)
    return model.eval()


def checkpoint(name: str, path: Path) -> Path:
    """Write the weights of `network`."""
    save_file({key: value.contiguous() for key, value in network(name).state_dict().items()}, path)
    return path

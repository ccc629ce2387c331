"""Models by name: torchvision, timm, the small residual networks of the distillation literature, the user's own."""

from kdedge.models.stride import output_stride, reduce_stride
from kdedge.models.weights import load_state, read_state
from kdedge.models.zoo import (
    ModelSpec,
    build,
    canonical_name,
    head_tensors,
    pretrained_input,
    pretrained_labels,
    specify,
)

__all__ = [
    "ModelSpec",
    "build",
    "canonical_name",
    "head_tensors",
    "load_state",
    "output_stride",
    "pretrained_input",
    "pretrained_labels",
    "read_state",
    "reduce_stride",
    "specify",
]

"""Saliency methods: one pure function of tensors per module, with its source."""

from kdedge_export.saliency.methods.method_types import (
    AttentionMethod,
    CAMMethod,
    GradientMethod,
    Method,
    PropagationMethod,
)
from kdedge_export.saliency.methods.registry import DEEPLIFT, GRADIENT_ATTENTION, HIRESCAM, METHODS

__all__ = [
    "DEEPLIFT",
    "GRADIENT_ATTENTION",
    "HIRESCAM",
    "METHODS",
    "AttentionMethod",
    "CAMMethod",
    "GradientMethod",
    "Method",
    "PropagationMethod",
]

"""Saliency methods: one pure function of tensors per module, with its source."""

from kdedge_export.saliency.methods.method_types import AttentionMethod, CAMMethod, GradientMethod, Method
from kdedge_export.saliency.methods.registry import GRADIENT_ATTENTION, HIRESCAM, METHODS

__all__ = ["GRADIENT_ATTENTION", "HIRESCAM", "METHODS", "AttentionMethod", "CAMMethod", "Method", "GradientMethod"]

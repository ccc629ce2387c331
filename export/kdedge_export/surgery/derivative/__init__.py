"""Reverse-mode differentiation of a graph as ONNX nodes, with one module of rules per kind of operator."""

from kdedge_export.surgery.derivative.gradient import gradients
from kdedge_export.surgery.derivative.step import CannotDifferentiate

__all__ = ["CannotDifferentiate", "gradients"]

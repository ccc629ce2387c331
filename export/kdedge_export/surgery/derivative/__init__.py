"""Reverse differentiation of a graph, written as ONNX nodes: a module of rules for each kind of operator."""

from kdedge_export.surgery.derivative.gradient import gradients
from kdedge_export.surgery.derivative.step import CannotDifferentiate

__all__ = ["CannotDifferentiate", "gradients"]

"""Reverse-mode differentiation of a graph as ONNX nodes, with one module of rules per kind of operator."""

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate
from kdedge_export.onnx_graph.autodiff.reverse_mode import gradients

__all__ = ["CannotDifferentiate", "gradients"]

"""Reverse differentiation of a graph, written as ONNX nodes: a module of rules for each kind of operator."""

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate
from kdedge_export.onnx_graph.autodiff.reverse_mode import gradients

__all__ = ["CannotDifferentiate", "gradients"]

"""Export of a PyTorch classifier to one ONNX graph with logits and saliency map."""

from kdedge_export.graph.deployed import Deployed, Plain, deploy
from kdedge_export.graph.onnx_file import save_model
from kdedge_export.graph.onnx_graph import ExportedGraph, export_graph

__all__ = ["Deployed", "ExportedGraph", "Plain", "deploy", "export_graph", "save_model"]

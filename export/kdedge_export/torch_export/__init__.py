"""Export of a PyTorch classifier to one ONNX graph with logits and saliency map."""

from kdedge_export.onnx_graph.model_file import save_model
from kdedge_export.torch_export.exporter import ExportedGraph, export_graph
from kdedge_export.torch_export.wrappers import Deployed, Plain, deploy

__all__ = ["Deployed", "ExportedGraph", "Plain", "deploy", "export_graph", "save_model"]

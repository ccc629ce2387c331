"""Export of a PyTorch classifier to one ONNX graph with logits and saliency map."""

from kdedge_export.onnx_graph.model_file import save_model
from kdedge_export.torch_export.exporter import ExportedGraph, export_graph
from kdedge_export.torch_export.wrappers import ClassifierOnly, ExportableModel, wrap_for_export

__all__ = ["ExportableModel", "ExportedGraph", "ClassifierOnly", "wrap_for_export", "export_graph", "save_model"]

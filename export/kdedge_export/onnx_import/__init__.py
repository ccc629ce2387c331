"""Explain an existing `.onnx` file from any framework, without its source code or torch."""

from kdedge_export.onnx_import.import_model import ExplainedFile, add_saliency
from kdedge_export.onnx_import.label_names import read_labels
from kdedge_export.onnx_import.preprocessing import Geometry, PixelInput

__all__ = ["ExplainedFile", "Geometry", "PixelInput", "add_saliency", "read_labels"]

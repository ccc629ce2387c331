"""Explain an existing `.onnx` file from any framework, without its source code or torch."""

from kdedge_export.onnx_import.import_model import ExplainedFile, explain_file
from kdedge_export.onnx_import.label_names import read_labels
from kdedge_export.onnx_import.preprocessing import Geometry, PixelInput

__all__ = ["ExplainedFile", "Geometry", "PixelInput", "explain_file", "read_labels"]

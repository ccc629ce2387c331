"""Explain an existing `.onnx` file from any framework, without its source code or torch."""

from kdedge_export.surgery.explained import ExplainedFile, explain_file
from kdedge_export.surgery.front import Geometry, PixelInput
from kdedge_export.surgery.labels import read_labels

__all__ = ["ExplainedFile", "Geometry", "PixelInput", "explain_file", "read_labels"]

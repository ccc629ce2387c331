"""ONNX graphs in memory: index, edits on `onnx_ir`, sessions, spatial coordinates and reverse-mode differentiation."""

"""ONNX graphs in memory: index, edits, sessions, spatial coordinates and reverse-mode differentiation."""

"""Explain, export, quantize and validate PyTorch classifiers."""

__version__ = "0.1.0"

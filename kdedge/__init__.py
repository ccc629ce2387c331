"""Distill small image classifiers with saliency-map supervision and export them with their explanation."""

import kdedge_runtime  # noqa: F401  # turns onnxruntime's telemetry off, before any import of it here

__version__ = "0.1.0"

"""Export, explain, quantize and validate PyTorch classifiers."""

import kdedge_runtime  # noqa: F401  # turns onnxruntime's telemetry off, before any import of it here

__version__ = "0.1.0"

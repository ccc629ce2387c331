"""Errors raised only by export; the base classes are in `kdedge_runtime.errors`."""

from kdedge_runtime.errors import UsageError

__all__ = ["GraphNotSupported", "HeadNotSupported"]


class GraphNotSupported(UsageError):
    """Raised if PyTorch cannot export the model as an ONNX graph."""


class HeadNotSupported(UsageError):
    """Raised if the model's head has no saliency map that can be exported."""

"""What only export can find wrong (part of the tree in `kdedge_runtime.errors`)."""

from kdedge_runtime.errors import UsageError

__all__ = ["GraphNotSupported", "HeadNotSupported"]


class GraphNotSupported(UsageError):
    """PyTorch cannot write the model as an ONNX graph."""


class HeadNotSupported(UsageError):
    """The model's head has no saliency map that kdedge can export."""

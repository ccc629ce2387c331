"""What only export can find wrong (part of the tree in `kdedge_runtime.errors`)."""

from kdedge_runtime.errors import UsageError

__all__ = ["HeadNotSupported"]


class HeadNotSupported(UsageError):
    """The model's head has no saliency map that kdedge can export."""

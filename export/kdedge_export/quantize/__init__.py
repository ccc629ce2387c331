"""int8 that keeps the answer and the reason."""

from kdedge_export.quantize.static import Recipe, quantize

__all__ = ["Recipe", "quantize"]

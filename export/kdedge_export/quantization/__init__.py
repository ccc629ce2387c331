"""int8 that keeps the answer and the reason."""

from kdedge_export.quantization.mixed_precision import Goal, Tradeoff, TradeoffPoint
from kdedge_export.quantization.recipe import Recipe
from kdedge_export.quantization.static import Quantized, quantize

__all__ = ["Goal", "Quantized", "Recipe", "Tradeoff", "TradeoffPoint", "quantize"]

"""int8 that keeps the answer and the reason."""

from kdedge_export.quantize.mixed_precision import Goal, Tradeoff, TradeoffPoint
from kdedge_export.quantize.recipe import Recipe
from kdedge_export.quantize.static import Quantized, quantize

__all__ = ["Goal", "Quantized", "Recipe", "Tradeoff", "TradeoffPoint", "quantize"]

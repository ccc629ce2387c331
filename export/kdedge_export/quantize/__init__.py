"""Static int8 quantization that preserves predictions and saliency maps."""

from kdedge_export.quantize.mixed_precision import Goal, Tradeoff, TradeoffPoint
from kdedge_export.quantize.recipe import Recipe
from kdedge_export.quantize.static import Quantized, quantize

__all__ = ["Goal", "Quantized", "Recipe", "Tradeoff", "TradeoffPoint", "quantize"]

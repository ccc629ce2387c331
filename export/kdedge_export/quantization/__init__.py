"""Static int8 quantization that preserves predictions and saliency maps."""

from kdedge_export.quantization.mixed_precision import Goal, Tradeoff, TradeoffPoint
from kdedge_export.quantization.recipe import Recipe
from kdedge_export.quantization.static import Quantized, quantize

__all__ = ["Goal", "Quantized", "Recipe", "Tradeoff", "TradeoffPoint", "quantize"]

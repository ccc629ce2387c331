"""Static int8 quantization that preserves predictions and saliency maps."""

from kdedge_export.quantization.mixed_precision import FidelityGoal, Tradeoff, TradeoffPoint
from kdedge_export.quantization.recipe import QuantizationRecipe
from kdedge_export.quantization.static import Quantized, quantize

__all__ = ["FidelityGoal", "Quantized", "QuantizationRecipe", "Tradeoff", "TradeoffPoint", "quantize"]

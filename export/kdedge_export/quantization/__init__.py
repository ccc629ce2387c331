"""Conversion to other precisions that preserves predictions and saliency maps: static int8, and fp16."""

from kdedge_export.quantization.mixed_precision import FidelityGoal, Tradeoff, TradeoffPoint
from kdedge_export.quantization.precision_recipe import (
    CalibrationSet,
    ConversionInputs,
    ConvertedGraph,
    FidelityBounds,
    PrecisionRecipe,
)
from kdedge_export.quantization.precision_recipes import RECIPES, recipe_named
from kdedge_export.quantization.recipe import QuantizationRecipe
from kdedge_export.quantization.static import Quantized, quantize

__all__ = [
    "RECIPES",
    "CalibrationSet",
    "ConversionInputs",
    "ConvertedGraph",
    "FidelityBounds",
    "FidelityGoal",
    "PrecisionRecipe",
    "QuantizationRecipe",
    "Quantized",
    "Tradeoff",
    "TradeoffPoint",
    "quantize",
    "recipe_named",
]

"""Quantization settings of a device profile as a recipe of the exporter."""

from kdedge_export.quantization import QuantizationRecipe
from kdedge_runtime.devices import DeviceProfile

__all__ = ["recipe_of"]


def recipe_of(profile: DeviceProfile) -> QuantizationRecipe:
    """Return the quantization recipe for a device."""
    return QuantizationRecipe(profile.quantization.reduce_range, profile.quantization.activations)

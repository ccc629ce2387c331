"""Quantization settings of a device's integer kernels."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["QuantizationRecipe"]


@dataclass(frozen=True)
class QuantizationRecipe:
    """Settings for a device's integer kernels."""

    reduce_range: bool = True
    """True for 7-bit weights. With 8 bits, x86 cores without VNNI saturate (uint8 × int8 pairs are summed in 16
    bits), so that results differ between cores. ARM and VNNI cores do not need it."""
    activations: Literal["uint8", "int8"] = "uint8"
    """Type of the activations. uint8 is up to twice as fast on x86, and image bytes are already uint8."""

    @property
    def largest(self) -> int:
        """Largest quantized weight of a channel. Two products of 64 · 255 still fit into 16 bits."""
        return 64 if self.reduce_range else 127

"""How to quantize, as a device profile gives it."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """What suits a device's integer kernels."""

    reduce_range: bool = True
    """7-bit weights. Without it, x86 cores that have no VNNI saturate (uint8 × int8 pairs are summed in 16 bits),
    and what was validated on one core is not what another computes. ARM and VNNI cores do not need it."""
    activations: Literal["uint8", "int8"] = "uint8"
    """uint8 is up to twice as fast on x86, and the image's bytes are uint8 already."""

    @property
    def largest(self) -> int:
        """The byte of a channel's largest weight. Twice 64 · 255 is still a sum of 16 bits."""
        return 64 if self.reduce_range else 127

"""The settings of augmentation."""

from dataclasses import dataclass

from kdedge_runtime.errors import UsageError

__all__ = ["Augmentation"]

_LARGEST_ALPHA = 100  # where all pairs are mixed nearly half and half


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; 0 or False leaves a part out.

    Raises:
        UsageError: a setting is outside its range.
    """

    shift: float = 0.125
    """Largest shift along each axis, as a share of that side, 0 to 0.5; edges are filled with their mirror image."""
    flip: bool = True
    """Mirror half of the images; off where left and right differ, as on traffic signs."""
    geometry: float = 0.0
    """Strength of rotation, shear or zoom, 0 to 1: at 1, up to 30°, 0.3, or a factor of 1.3."""
    erase: float = 0.0
    """Probability that a box of an image is replaced by noise, 0 to 1; 0.25 is usual."""
    mixup: float = 0.0
    """Alpha of the Beta distribution of mixup's weights, 0 to 100; 0.2 is usual."""
    cutmix: float = 0.0
    """Alpha of the Beta distribution of cutmix's areas, 0 to 100; 1 is usual."""

    def __post_init__(self) -> None:
        _require("shift", self.shift, 0.5, "a share of the image's side from 0 to 0.5", usual=0.125)
        _require("geometry", self.geometry, 1.0, "a strength from 0 to 1", usual=0.5)
        _require("erase", self.erase, 1.0, "a probability from 0 to 1", usual=0.25)
        alpha = f"a Beta distribution's alpha from 0 to {_LARGEST_ALPHA}"
        _require("mixup", self.mixup, _LARGEST_ALPHA, alpha, usual=0.2)
        _require("cutmix", self.cutmix, _LARGEST_ALPHA, alpha, usual=1)

    @property
    def mixes(self) -> bool:
        """Whether the images of a batch are mixed, and their targets with them."""
        return self.mixup > 0 or self.cutmix > 0


def _require(name: str, value: float, largest: float, expected: str, *, usual: float) -> None:
    if not 0 <= value <= largest:  # catches NaN too
        raise UsageError(
            f"The augmentation's {name} is {value:g}. Expected {expected}. "
            f"Write {name} = {usual:g}, or {name} = 0 to leave it out."
        )

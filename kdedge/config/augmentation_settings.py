"""Augmentation settings."""

from dataclasses import dataclass

from kdedge_runtime.errors import UsageError

__all__ = ["Augmentation"]

_MAX_ALPHA = 100  # at this value nearly all pairs are mixed half and half


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training samples; 0 or False disables a part.

    Raises:
        UsageError: A setting is out of range.
    """

    shift: float = 0.125
    """Maximum shift along each axis as a fraction of that side, 0 to 0.5; padding is by reflection."""
    flip: bool = True
    """Flip images horizontally with probability 0.5; disable it if left and right differ, as on traffic signs."""
    geometry: float = 0.0
    """Strength of rotation, shear or zoom, 0 to 1; at 1 up to 30°, 0.3, or a factor of 1.3."""
    photometric: float = 0.5
    """Strength of changes of brightness, contrast and color, and of blur, noise and JPEG, 0 to 1.

    At 1 brightness varies by a factor of 3.
    """
    erase: float = 0.0
    """Probability of Random Erasing, 0 to 1; typically 0.25."""
    mixup: float = 0.0
    """Alpha of the Beta distribution of mixup weights, 0 to 100; typically 0.2."""
    cutmix: float = 0.0
    """Alpha of the Beta distribution of CutMix areas, 0 to 100; typically 1."""
    background: str = ""
    """Folder of background recordings that are mixed into sounds; empty for none. Sounds only."""

    def __post_init__(self) -> None:
        _require("shift", self.shift, 0.5, "a fraction of the image side from 0 to 0.5", usual=0.125)
        _require("geometry", self.geometry, 1.0, "a strength from 0 to 1", usual=0.5)
        _require("photometric", self.photometric, 1.0, "a strength from 0 to 1", usual=0.5)
        _require("erase", self.erase, 1.0, "a probability from 0 to 1", usual=0.25)
        alpha = f"a Beta distribution's alpha from 0 to {_MAX_ALPHA}"
        _require("mixup", self.mixup, _MAX_ALPHA, alpha, usual=0.2)
        _require("cutmix", self.cutmix, _MAX_ALPHA, alpha, usual=1)

    @property
    def mixes(self) -> bool:
        """True if mixup or CutMix is enabled."""
        return self.mixup > 0 or self.cutmix > 0


def _require(name: str, value: float, largest: float, expected: str, *, usual: float) -> None:
    if not 0 <= value <= largest:  # also catches NaN
        raise UsageError(
            f"The augmentation setting {name} is {value:g}. Expected {expected}. "
            f"Write {name} = {usual:g}, or {name} = 0 to disable it."
        )

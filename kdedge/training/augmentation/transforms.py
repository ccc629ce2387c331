"""Augmentation parameters for all images of an epoch, drawn from a seed, and their application to a batch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdedge.config.augmentation_settings import Augmentation
from kdedge.training.augmentation.erasing import draw_erasures, erase
from kdedge.training.augmentation.geometry import draw_warps, move, move_and_warp
from kdedge.training.augmentation.photometric import PhotometricParams, draw_photometric, photometric

__all__ = ["AugmentationParams", "draw_augmentation", "augment"]


class AugmentationParams(NamedTuple):
    """Augmentation parameters, one row per image; parts that are disabled are None."""

    shift: Tensor
    """Offset of the window on the reflection-padded image, int64 `[n, 2]`, in px down and right."""
    mirrored: Tensor
    """Horizontal flip before the shift, bool `[n]`."""
    warps: Tensor | None
    """Warp matrices float32 `[n, 2, 2]`, see `kdedge.training.augmentation.geometry.draw_warps`."""
    boxes: Tensor | None
    """Erased boxes, int64 `[n, 4]`: top, left, bottom, right in px, bottom and right exclusive; empty for none."""
    noise_keys: Tensor | None
    """Hash keys of the noise in erased boxes, int16 `[n]`."""
    photometric: PhotometricParams | None

    def to(self, device: torch.device) -> "AugmentationParams":
        """Copy the parameters to a device."""
        return AugmentationParams(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]

    def take(self, index: Tensor) -> "AugmentationParams":
        """Select the rows of a batch; `index` is int64 `[n]` on the same device."""
        return AugmentationParams(self.shift[index], self.mirrored[index], *(_rows(part, index) for part in self[2:]))


def _rows(part: Any, index: Tensor) -> Any:
    if isinstance(part, PhotometricParams):
        return part.take(index)
    return None if part is None else part[index]


def draw_augmentation(
    augmentation: Augmentation, count: int, height: int, width: int, generator: torch.Generator
) -> AugmentationParams:
    """Draw the augmentation parameters of every image of a dataset.

    Row i depends only on the arguments and i, not on the batching. A teacher's output for an augmented image can
    therefore be cached and reused.

    Args:
        augmentation: augmentation settings.
        count: number of images.
        height: image height in px.
        width: image width in px.
        generator: random generator; its device is the device of the result. Devices draw different numbers from the
            same seed.
    """
    device = generator.device
    down, right = (round(augmentation.shift * side) for side in (height, width))
    shift = torch.stack(
        [torch.randint(-most, most + 1, (count,), generator=generator, device=device) for most in (down, right)], dim=1
    )
    mirrored = torch.randint(0, 2, (count,), generator=generator, device=device) == 1
    warps = boxes = keys = None
    if augmentation.geometry:
        warps = draw_warps(augmentation.geometry, count, generator)
    if augmentation.erase:
        boxes, keys = draw_erasures(augmentation.erase, count, height, width, generator)
    tones = None
    if augmentation.photometric:
        tones = draw_photometric(augmentation.photometric, count, height, width, generator)
    return AugmentationParams(shift, mirrored & augmentation.flip, warps, boxes, keys, tones)


def augment(images: Tensor, view: AugmentationParams) -> Tensor:
    """Augment each image with its row of parameters: geometry, flip and shift, then photometric changes, then erasing.

    Without geometry and photometric changes pixels are copied, never interpolated.

    Args:
        images: uint8 RGB `[n, H, W, 3]`, not modified.
        view: rows for these images, drawn for their height and width, on their device.

    Returns:
        New images of the same shape and dtype.
    """
    if view.warps is None:
        images = move(images, view.shift, view.mirrored)
    else:
        images = move_and_warp(images, view.shift, view.mirrored, view.warps)
    if view.photometric is not None:
        images = photometric(images, view.photometric)
    if view.boxes is None or view.noise_keys is None:
        return images
    return erase(images, view.boxes, view.noise_keys)

"""Seeded views: what happens to each image of an epoch, drawn at once, and doing it to a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from kdedge.config.augmentation_settings import Augmentation
from kdedge.training.augmentation.erasing import draw_erasures, erase
from kdedge.training.augmentation.geometry import draw_warps, move, move_and_warp

__all__ = ["View", "draw_view", "transform"]


class View(NamedTuple):
    """One transformation an image, a row each; parts that the settings leave out are None."""

    shift: Tensor
    """int64 `[n, 2]`: px down and px right of the window on the mirrored-padded image."""
    mirrored: Tensor
    """bool `[n]`: left and right change places, before the shift."""
    warps: Tensor | None
    """float32 `[n, 2, 2]`, see `kdedge.training.augmentation.geometry.draw_warps`."""
    boxes: Tensor | None
    """int64 `[n, 4]`: top, left, bottom, right of what is erased, in px, the last two exclusive; empty for nothing."""
    noise_keys: Tensor | None
    """int16 `[n]`: what the erased boxes' noise is made from."""

    def to(self, device: torch.device) -> "View":
        """The same view in the memory of a device."""
        return View(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]

    def take(self, index: Tensor) -> "View":
        """The rows of a batch; `index` is int64 `[n]` on the view's device."""
        return View(self.shift[index], self.mirrored[index], *(_rows(part, index) for part in self[2:]))


def _rows(part: Tensor | None, index: Tensor) -> Tensor | None:
    return None if part is None else part[index]


def draw_view(augmentation: Augmentation, count: int, height: int, width: int, generator: torch.Generator) -> View:
    """Draw the transformation of every image of a data set.

    Row i depends on the arguments and i, whatever batches the rows are taken in. So a teacher's answer about an image
    in a view can be kept and used again.

    Args:
        augmentation: the settings.
        count: images.
        height: of the images, in px.
        width: of the images, in px.
        generator: its device is that of the view; devices draw different numbers from the same seed.
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
    return View(shift, mirrored & augmentation.flip, warps, boxes, keys)


def transform(images: Tensor, view: View) -> Tensor:
    """Show each image as its row of the view says: geometry, mirroring and shift, then erasing.

    Without geometry pixels are copied, never interpolated.

    Args:
        images: uint8 RGB `[n, H, W, 3]`; left as they are.
        view: the images' rows, drawn for their height and width, on their device.

    Returns:
        New images of the same shape and type.
    """
    if view.warps is None:
        images = move(images, view.shift, view.mirrored)
    else:
        images = move_and_warp(images, view.shift, view.mirrored, view.warps)
    if view.boxes is None or view.noise_keys is None:
        return images
    return erase(images, view.boxes, view.noise_keys)

"""Images at export: normalization in the graph, corruptions, and thumbnails."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from kdedge_export.html.thumbnails import at_display_size, overlaid
from kdedge_export.modalities.export_modality import Corruption, ExportModality
from kdedge_export.scenes import LABELS, MIN_SIDE_PX, render_scene
from kdedge_export.scenes.textures import render_textures
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.util.arrays import Floats, Pixels

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["IMAGE", "ImageExport", "edge_maps"]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601 luma."""

_BLUR = 0.1
"""Blur radius as a fraction of the image side, which hides objects at any image size. RISE's 5 px of 224 leaves small
images recognizable, so all maps would score alike."""


class ImageExport(ExportModality):
    """Images at export."""

    @property
    def corruptions(self) -> Mapping[str, Corruption]:
        """Noise, blur, JPEG compression and brightness in two severities each.

        They apply at the model's input size. Gaussian noise is independent per pixel and channel.
        """
        return {
            "noise, σ = 10 of 255": partial(_noise, sigma=10),
            "noise, σ = 25 of 255": partial(_noise, sigma=25),
            "blur, radius 1% of the side": partial(_blur, share=0.01),
            "blur, radius 2% of the side": partial(_blur, share=0.02),
            "JPEG, quality 40": partial(_jpeg, quality=40),
            "JPEG, quality 10": partial(_jpeg, quality=10),
            "brightness × 0.6": partial(_brightness, factor=0.6),
            "brightness × 1.5": partial(_brightness, factor=1.5),
        }

    @property
    def has_layer_attribution(self) -> bool:
        """True; see `ExportModality`."""
        return True

    def front_end(self, spec: ImageInput) -> nn.Module:
        """Return the cast and normalization; see `Normalize`."""
        from kdedge_export.modalities.normalization import Normalize

        return Normalize(spec)

    def example(self, spec: ImageInput) -> Tensor:
        """Return normally distributed values `[1, 3, height, width]`."""
        import torch

        return torch.randn(1, 3, spec.height, spec.width, generator=torch.Generator().manual_seed(0))

    def random_samples(self, spec: ImageInput, count: int, rng: np.random.Generator) -> Pixels:
        """Draw images of independent uniform pixels."""
        return rng.integers(0, 256, (count, *spec.shape), dtype=np.uint8)

    def smoothed(self, sample: Pixels) -> Pixels:
        """Blur an image until objects are unrecognizable."""
        return _blur(sample, 0, _BLUR)

    def baseline_maps(self, spec: ImageInput, samples: Pixels) -> dict[str, Floats]:
        """Return edge maps; see `edge_maps`."""
        return {"edges": edge_maps(samples)}

    @property
    def mirrored_axes(self) -> Sequence[tuple[int, int]]:
        """Horizontal and vertical axes, in this order."""
        return (2, 2), (1, 1)

    def display_samples(self, spec: ImageInput, count: int) -> Pixels:
        """Draw synthetic scenes, since no photos are available at every export.

        For EfficientNet-Lite0 and SqueezeNet, displacements on photos agree to 0.1 positions.
        """
        # A smaller input shows the scene of the smallest size, scaled down.
        rng, side = np.random.default_rng(0), max(spec.height, spec.width, MIN_SIDE_PX)
        scenes = (render_scene(LABELS[at % len(LABELS)], rng, side).image for at in range(count))
        return np.stack([spec.preprocess(scene) for scene in scenes])

    drawn_name = "textures and noise"

    def unfamiliar_samples(self, spec: ImageInput, count: int) -> Pixels:
        """Draw textures and noise; see `kdedge_export.scenes.textures`."""
        return render_textures(np.random.default_rng(0), count, spec.height, spec.width)

    def thumbnail(self, sample: Pixels, maps: Sequence[Floats] = ()) -> Pixels:
        """Return the image at display size."""
        return at_display_size(sample)

    def overlay(self, sample: Pixels, saliency_map: Floats, shift: tuple[float, float]) -> Pixels:
        """Return the image with its heat map at display size."""
        return overlaid(sample, saliency_map, shift)


def edge_maps(images: Pixels) -> Floats:
    """Compute Sobel edge strength, `[N, H, W]`.

    The control of Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018: it resembles an explanation but
    depends only on the image.

    Args:
        images: uint8 RGB `[N, H, W, 3]`.
    """
    gray = np.pad(images.astype(np.float32) @ _LUMA, ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth_rows = gray[:, :-2] + 2 * gray[:, 1:-1] + gray[:, 2:]
    smooth_columns = gray[:, :, :-2] + 2 * gray[:, :, 1:-1] + gray[:, :, 2:]
    across = smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2]
    down = smooth_columns[:, 2:] - smooth_columns[:, :-2]
    strength: Floats = np.hypot(across, down)
    return strength


def _noise(image: Pixels, number: int, sigma: float) -> Pixels:
    noise = np.random.default_rng((0, number)).normal(0, sigma, image.shape)
    return np.asarray(np.clip(np.round(image + noise), 0, 255), dtype=np.uint8)


def _blur(image: Pixels, _number: int, share: float) -> Pixels:
    radius = share * max(image.shape[:2])
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def _jpeg(image: Pixels, _number: int, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer, formats=["JPEG"]) as opened:
        return np.asarray(opened.convert("RGB"))


def _brightness(image: Pixels, _number: int, factor: float) -> Pixels:
    return np.asarray(np.clip(np.round(image * factor), 0, 255), dtype=np.uint8)


IMAGE = ImageExport()

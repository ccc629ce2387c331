"""Robustness of predictions and saliency maps to image corruptions."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from kdedge_export.metrics import agreement
from kdedge_export.metrics.comparison import pair_pearson
from kdedge_export.metrics.confidence import CORRELATION, SHARE, Interval, mean_interval
from kdedge_export.metrics.torch_predictions import Predictions, TorchModel, predict
from kdedge_runtime import Model
from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["DISTURBANCES", "Robustness", "disturbed", "robustness"]


@dataclass(frozen=True)
class Robustness:
    """Results of a model file on corrupted images."""

    disturbance: str
    """Corruption and severity; a key of `DISTURBANCES`."""
    role: str
    top1: float | None
    """Top-1 accuracy in [0, 1]; None without labels."""
    agreement: float | None
    """Fraction of images in [0, 1] with the reference's prediction for the same corrupted image; None without a
    reference."""
    map_pearson: float | None
    """Mean correlation with the reference's map of the same corrupted image; None without maps or a reference."""
    prediction_kept: float
    """Fraction of images in [0, 1] with the file's own prediction for the clean image."""
    map_kept: float | None
    """Mean correlation with the file's own map of the clean image, for the same class."""
    intervals: Mapping[str, Interval | None]
    """95 % intervals by field name."""


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


Disturbance: TypeAlias = Callable[[Pixels, int], Pixels]
DISTURBANCES: dict[str, Disturbance] = {
    "noise, σ = 10 of 255": partial(_noise, sigma=10),
    "noise, σ = 25 of 255": partial(_noise, sigma=25),
    "blur, radius 1 % of the side": partial(_blur, share=0.01),
    "blur, radius 2 % of the side": partial(_blur, share=0.02),
    "JPEG, quality 40": partial(_jpeg, quality=40),
    "JPEG, quality 10": partial(_jpeg, quality=10),
    "brightness × 0.6": partial(_brightness, factor=0.6),
    "brightness × 1.5": partial(_brightness, factor=1.5),
}
"""Corruptions in two severities of each kind.

Each is a function of an image uint8 RGB `[H, W, 3]` and its index, which seeds the noise. They apply at the model's
input size. Gaussian noise is independent per pixel and channel.
"""


def disturbed(images: Pixels, disturbance: str) -> Pixels:
    """Corrupt images uint8 RGB `[N, H, W, 3]` in one of the ways of `DISTURBANCES`."""
    change = DISTURBANCES[disturbance]
    return np.stack([change(image, number) for number, image in enumerate(images)])


def robustness(
    origin: TorchModel | Model,
    files: Mapping[str, Model],
    images: Pixels,
    targets: Integers | None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Robustness, ...]:
    """Compare model files with their reference, and with their own clean results, on corrupted images.

    All maps of an image explain the reference's prediction for the clean image.

    Args:
        origin: the PyTorch student, or the fp32 file, which then has no reference.
        files: model files by name.
        images: uint8 RGB `[N, H, W, 3]` at the model's size.
        targets: int64 `[N]`, the target classes; None for unlabeled images.
        progress: called with the number of corruptions done.
    """
    classes = predict(origin, images).explained_class
    clean = {role: predict(model, images, classes) for role, model in files.items()}
    rows = []
    for number, name in enumerate(DISTURBANCES):
        corrupted = disturbed(images, name)
        predictions = predict(origin, corrupted, classes)
        for role, model in files.items():
            mine, against = (
                (predictions, None) if model is origin else (predict(model, corrupted, classes), predictions)
            )
            rows.append(_row(name, role, against, mine, clean[role], targets))
        progress(number + 1)
    return tuple(rows)


def _row(
    name: str,
    role: str,
    reference: Predictions | None,
    predictions: Predictions,
    clean: Predictions,
    targets: Integers | None,
) -> Robustness:
    chosen = agreement.top1(predictions.logits)
    scores = {
        "top1": None if targets is None else (chosen == targets).astype(np.float64),
        "agreement": None if reference is None else agreement.agrees(reference.logits, predictions.logits),
        "map_pearson": None if reference is None else pair_pearson(reference, predictions),
        "prediction_kept": agreement.agrees(clean.logits, predictions.logits),
        "map_kept": pair_pearson(clean, predictions),
    }
    figures = {key: None if some is None else agreement.mean(some) for key, some in scores.items()}
    correlations = {"map_pearson", "map_kept"}
    intervals = {
        key: mean_interval(some, CORRELATION if key in correlations else SHARE)
        for key, some in scores.items()
        if some is not None
    }
    return Robustness(name, role, **figures, intervals=intervals)  # type: ignore[arg-type]

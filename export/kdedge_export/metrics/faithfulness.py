"""Faithfulness of saliency maps: deletion and insertion curves (Petsiuk et al., RISE, BMVC 2018, section 4.2).

Deletion removes pixels in the order of the map, most important first, by painting them in the color that normalizes to
0. The sooner the probability falls, the smaller the area under its curve, and the better. Insertion starts from a
blurred image and restores the pixels in the same order; a larger area is better. All maps are evaluated with one model,
the deployed file, so that areas are comparable.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from kdedge_export.metrics.baseline_maps import edge_maps, random_maps, upsampled
from kdedge_export.metrics.confidence import SHARE, Interval, mean_interval
from kdedge_export.metrics.torch_predictions import at_once
from kdedge_runtime import Model
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

__all__ = ["FAITH_IMAGES", "FEWEST_FAITH_IMAGES", "MOST_MARGIN", "STEPS", "Faithfulness", "areas", "faithfulness"]

FAITH_IMAGES = 64
"""Maximum number of images for this measurement; each is run 22 times per kind of map."""
FEWEST_FAITH_IMAGES = 30
"""Minimum number of images for checking a margin; with fewer, only a margin above 0.07 could be significant."""
MOST_MARGIN = 0.5
"""Cap on each image's margin, for or against a map. The bound of a mean assumes that an unseen image scores worst. At
an uncapped worst score of -2, the check would need hundreds of images."""
STEPS = 10
"""Number of steps per curve, at fractions 1/10, 2/10, …, 1 of the pixels, besides 0."""
_BLUR = 0.1
"""Blur radius as a fraction of the image side, which hides objects at any image size. RISE's 5 px of 224 leaves small
images recognizable, so all maps would score alike."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Faithfulness:
    """Deletion and insertion scores of one kind of map."""

    deletion: float
    """Mean area under the deletion curve, in [0, 1]; lower is better."""
    insertion: float
    """Mean area under the insertion curve, in [0, 1]; higher is better."""
    margin: float
    """Mean of insertion minus deletion, minus that of a random map, each image capped at ±0.5; above 0 is better than
    chance."""
    intervals: Mapping[str, Interval | None]
    """95 % intervals by field name; the margin's is of the pairs."""


def faithfulness(
    model: Model,
    maps: Mapping[str, Floats],
    images: Pixels,
    classes: Integers,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Faithfulness]:
    """Compute insertion and deletion scores of models' maps, of random maps and of edge maps.

    The baselines have the resolution of the last maps, so that they are equally smooth.

    Args:
        model: model whose probabilities are measured, at its file's temperature.
        maps: raw signed maps `[N, h, w]` by model name.
        images: uint8 RGB `[N, H, W, 3]` at the model's size.
        classes: int64 `[N]`, the explained class, whose probability is measured.
        progress: called with the number of curves done, two per image and kind of map.
    """
    n, height, width = list(maps.values())[-1].shape
    baselines = {"random": random_maps(n, height, width), "edges": edge_maps(images, height, width)}
    curves: dict[str, tuple[Scores, Scores]] = {}
    done = 0
    for name, some in (dict(maps) | baselines).items():
        pairs = []
        for image, saliency_map, wanted in zip(images, some, classes, strict=True):
            pairs.append(areas(model, image, saliency_map, int(wanted)))
            done += 2
            progress(done)
        curves[name] = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    chance = curves["random"][1] - curves["random"][0]
    return {name: _summed_up(*pair, chance) for name, pair in curves.items()}


def areas(model: Model, image: Pixels, saliency_map: Floats, wanted: int) -> tuple[float, float]:
    """Compute the areas under the deletion and the insertion curve of one image, by the trapezoidal rule.

    Args:
        model: model whose probability is measured.
        image: uint8 RGB `[H, W, 3]`.
        saliency_map: `[h, w]`; pixels of equal importance are ordered at random with a fixed seed.
        wanted: class index.
    """
    height, width = image.shape[:2]
    importance = upsampled(saliency_map[None], height, width)[0].ravel()
    shuffled = np.random.default_rng(0).permutation(height * width)
    order = shuffled[np.argsort(-importance[shuffled], kind="stable")]
    blank = np.broadcast_to(np.round(np.array(model.metadata.input.mean) * 255).astype(np.uint8), image.shape)
    radius = _BLUR * max(height, width)
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
    variants = np.concatenate([_replaced(image, blank, order), _replaced(blurred, image, order)])
    size = at_once(model)
    batches = (variants[start : start + size] for start in range(0, len(variants), size))
    probabilities = np.concatenate([model.predict(batch).probabilities[:, wanted] for batch in batches])
    deletion, insertion = np.split(probabilities, 2)
    return _area(deletion), _area(insertion)


def _area(curve: Floats) -> float:
    return float((curve[1:] + curve[:-1]).mean() / 2)


def _replaced(start: Pixels, end: Pixels, order: Integers) -> Pixels:
    """Return `[STEPS + 1, H, W, 3]`: `start` with growing fractions of its pixels replaced by those of `end`."""
    stack = np.repeat(start.reshape(1, -1, 3), STEPS + 1, axis=0)
    source = end.reshape(-1, 3)
    for step in range(1, STEPS + 1):
        changed = order[: round(step * len(order) / STEPS)]
        stack[step, changed] = source[changed]
    return stack.reshape(STEPS + 1, *start.shape)


def _summed_up(deletion: Scores, insertion: Scores, chance: Scores) -> Faithfulness:
    margin = np.clip(insertion - deletion - chance, -MOST_MARGIN, MOST_MARGIN)
    return Faithfulness(
        float(deletion.mean()),
        float(insertion.mean()),
        float(margin.mean()),
        {
            "deletion": mean_interval(deletion, SHARE),
            "insertion": mean_interval(insertion, SHARE),
            "margin": mean_interval(margin, (-MOST_MARGIN, MOST_MARGIN)),
        },
    )

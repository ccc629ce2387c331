"""Whether a map shows what the answer rests on: take away what it points at, and see the answer go.

Deletion and insertion of Petsiuk et al., RISE, BMVC 2018, section 4.2. Deletion paints over the pixels in the order of
the map, most important first, in the colour that the model sees as 0; the sooner the probability falls, the lower the
area under its curve, the better. Insertion starts from a blurred picture and brings the pixels back in the same order:
the higher the area, the better. All maps are judged by one model, the file that ships, so that areas can be compared.
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
"""Images that a validation measures this on, at most: each is run 22 times a kind of map."""
FEWEST_FAITH_IMAGES = 30
"""Images on which a margin is judged, at least: on fewer, only one above 0.07 could be shown."""
MOST_MARGIN = 0.5
"""An image counts at most so much for or against a map. The bound of a mean counts an image unlike all that were
measured at its worst, and at the -2 that an area allows for, it would take hundreds of images."""
STEPS = 10
"""Shares of the pixels at which a curve is measured, besides none: 1/10, 2/10, …, all."""
_BLUR = 0.1
"""Radius of the blur as a share of the side: it hides objects in pictures of any size. RISE's 5 px of 224 leaves most
of a small picture to be recognised, and then every map scores alike."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Faithfulness:
    """How much the model's answer rests on what one kind of maps points at."""

    deletion: float
    """Mean area under the deletion curve, in [0, 1]; lower is better."""
    insertion: float
    """Mean area under the insertion curve, in [0, 1]; higher is better."""
    margin: float
    """Mean over images of insertion less deletion, less the same of a random map, where an image counts 0.5 at most for
    or against; above 0 is better than chance."""
    intervals: Mapping[str, Interval | None]
    """Of the three; the margin's is of the pairs."""


def faithfulness(
    model: Model,
    maps: Mapping[str, Floats],
    images: Pixels,
    classes: Integers,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Faithfulness]:
    """Insertion and deletion of models' maps, of random maps and of the pictures' edges.

    The baselines have as many cells as the last of the maps, so that they are as smooth.

    Args:
        model: whose probabilities are read, at its file's temperature.
        maps: `[N, h, w]`, raw and signed, by the name of the model that they come from.
        images: uint8 RGB `[N, H, W, 3]` at the model's size.
        classes: int64 `[N]`, the class that the maps explain and whose probability is read.
        progress: called with the number of curves done, two an image and kind of map.
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
    """Areas under the deletion and the insertion curve of one picture, by the trapezoidal rule.

    Args:
        model: whose probability is read.
        image: uint8 RGB `[H, W, 3]`.
        saliency_map: `[h, w]`; pixels of equal importance come in a random order, the same every time.
        wanted: the class.
    """
    height, width = image.shape[:2]
    importance = upsampled(saliency_map[None], height, width)[0].ravel()
    shuffled = np.random.default_rng(0).permutation(height * width)
    order = shuffled[np.argsort(-importance[shuffled], kind="stable")]
    blank = np.broadcast_to(np.round(np.array(model.metadata.input.mean) * 255).astype(np.uint8), image.shape)
    radius = _BLUR * max(height, width)
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
    pictures = np.concatenate([_replaced(image, blank, order), _replaced(blurred, image, order)])
    size = at_once(model)
    batches = (pictures[start : start + size] for start in range(0, len(pictures), size))
    probabilities = np.concatenate([model.predict(batch).probabilities[:, wanted] for batch in batches])
    deletion, insertion = np.split(probabilities, 2)
    return _area(deletion), _area(insertion)


def _area(curve: Floats) -> float:
    return float((curve[1:] + curve[:-1]).mean() / 2)


def _replaced(start: Pixels, end: Pixels, order: Integers) -> Pixels:
    """`[STEPS + 1, H, W, 3]`: the start, and more and more of its pixels taken from the end."""
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

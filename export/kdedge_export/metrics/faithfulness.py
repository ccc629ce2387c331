"""Faithfulness of saliency maps: deletion and insertion curves (Petsiuk et al., RISE, BMVC 2018, section 4.2).

Deletion removes positions in the order of the map, most important first, by the value that normalizes to 0: for images
a color. The sooner the probability falls, the smaller the area under its curve, and the better. Insertion starts from a
smoothed sample, such as a blurred image, and restores the positions in the same order; a larger area is better. All
maps are evaluated with one model, the deployed file, so that areas are comparable. Where scores are not probabilities,
their share of the range is measured (`Task.share`), such as a similarity from 0 to 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kdedge_export.metrics.baseline_maps import random_maps, upsampled
from kdedge_export.metrics.confidence import SHARE, Interval, mean_interval
from kdedge_export.metrics.scores import Scores
from kdedge_export.metrics.torch_predictions import at_once
from kdedge_runtime import Model
from kdedge_runtime.modalities import Sample
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = [
    "MAX_FAITHFULNESS_SAMPLES",
    "MIN_FAITHFULNESS_SAMPLES",
    "MAX_MARGIN",
    "STEPS",
    "Faithfulness",
    "areas",
    "faithfulness",
]

MAX_FAITHFULNESS_SAMPLES = 64
"""Maximum number of samples for this measurement; each is run 22 times per kind of map."""
MIN_FAITHFULNESS_SAMPLES = 30
"""Minimum number of samples for checking a margin; with fewer, only a margin above 0.07 could be significant."""
MAX_MARGIN = 0.5
"""Cap on each sample's margin, for or against a map. The bound of a mean assumes that an unseen sample scores worst. At
an uncapped worst score of -2, the check would need hundreds of samples."""
STEPS = 10
"""Number of steps per curve, at fractions 1/10, 2/10, …, 1 of the pixels, besides 0."""


@dataclass(frozen=True)
class Faithfulness:
    """Deletion and insertion scores of one kind of map."""

    deletion: float
    """Mean area under the deletion curve, in [0, 1], or of values in standard deviations; lower is better."""
    insertion: float
    """Mean area under the insertion curve, as for deletion; higher is better."""
    margin: float
    """Mean of insertion minus deletion, minus that of a random map, each sample capped at ±0.5; above 0 is better than
    chance."""
    intervals: Mapping[str, Interval | None]
    """95% intervals by field name; the margin's is of the pairs."""


def faithfulness(
    model: Model,
    maps: Mapping[str, Floats],
    samples: Sample,
    classes: Integers,
    smooth: Callable[[Sample], Sample],
    references: Mapping[str, Floats],
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Faithfulness]:
    """Compute insertion and deletion scores of models' maps, random maps and references.

    Random maps have the resolution of the last maps, so that they are equally smooth. Values without a range, as of a
    regression, are divided by their standard deviation over the samples, so that results do not depend on their unit.

    Args:
        model: model whose probabilities or values are measured, at its file's temperature.
        maps: raw signed maps `[N, h, w]` by model name.
        samples: preprocessed samples `[N, …]`.
        classes: int64 `[N]`, the explained class, whose probability is measured.
        smooth: function that removes the details of a sample, from which insertion starts.
        references: further baseline maps `[N, h, w]` of the samples.
        progress: called with the number of curves done, two per sample and kind of map.
    """
    n, height, width = list(maps.values())[-1].shape
    baselines = {"random": random_maps(n, height, width), **references}
    curves: dict[str, tuple[Scores, Scores]] = {}
    has_values, done = TASKS[model.metadata.task].has_values, 0
    scale, bounds = (_deviation(model, samples, classes), None) if has_values else (1.0, SHARE)
    for name, some in (dict(maps) | baselines).items():
        pairs = []
        for sample, saliency_map, wanted in zip(samples, some, classes, strict=True):
            pairs.append(areas(model, sample, saliency_map, int(wanted), smooth, scale=scale))
            done += 2
            progress(done)
        curves[name] = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    chance = curves["random"][1] - curves["random"][0]
    return {name: _summed_up(*pair, chance, bounds) for name, pair in curves.items()}


def areas(
    model: Model,
    sample: Sample,
    saliency_map: Floats,
    wanted: int,
    smooth: Callable[[Sample], Sample],
    *,
    scale: float = 1.0,
) -> tuple[float, float]:
    """Compute the areas under the deletion and the insertion curve of one sample, by the trapezoidal rule.

    Args:
        model: model whose probability is measured.
        sample: preprocessed sample.
        saliency_map: `[h, w]`; positions of equal importance are ordered at random with a fixed seed.
        wanted: class index.
        smooth: see `faithfulness`.
        scale: divisor of scores without a range.
    """
    spec = model.metadata.input
    importance = upsampled(saliency_map[None], *spec.mask_size)[0].ravel()
    shuffled = np.random.default_rng(0).permutation(importance.size)
    order = shuffled[np.argsort(-importance[shuffled], kind="stable")]
    removed = _removed(order).reshape(-1, *spec.mask_size)
    variants = np.concatenate([spec.mask(sample, 1 - removed), spec.mask(sample, removed, smooth(sample))])
    size = at_once(model)
    batches = (variants[start : start + size] for start in range(0, len(variants), size))
    scores = np.concatenate([model.predict(batch).scores[:, wanted] for batch in batches])
    task = TASKS[model.metadata.task]
    shares = [score / scale if (share := task.share(float(score))) is None else share for score in scores]
    deletion, insertion = np.split(np.asarray(shares, np.float32), 2)
    return _area(deletion), _area(insertion)


def _deviation(model: Model, samples: Sample, classes: Integers) -> float:
    """Return the standard deviation of the predicted values; 1 for constant values."""
    size = at_once(model)
    parts = [model.predict(samples[start : start + size]).scores for start in range(0, len(samples), size)]
    values = np.concatenate(parts)[np.arange(len(samples)), classes].astype(np.float64)
    return float(values.std()) or 1.0


def _area(curve: Floats) -> float:
    return float((curve[1:] + curve[:-1]).mean() / 2)


def _removed(order: Integers) -> Floats:
    """Return masks `[STEPS + 1, positions]` with 1 at growing fractions of the positions, in their order."""
    masks = np.zeros((STEPS + 1, len(order)), np.float32)
    for step in range(1, STEPS + 1):
        masks[step, order[: round(step * len(order) / STEPS)]] = 1
    return masks


def _summed_up(deletion: Scores, insertion: Scores, chance: Scores, bounds: tuple[float, float] | None) -> Faithfulness:
    margin = np.clip(insertion - deletion - chance, -MAX_MARGIN, MAX_MARGIN)
    return Faithfulness(
        float(deletion.mean()),
        float(insertion.mean()),
        float(margin.mean()),
        {
            "deletion": mean_interval(deletion, bounds),
            "insertion": mean_interval(insertion, bounds),
            "margin": mean_interval(margin, (-MAX_MARGIN, MAX_MARGIN)),
        },
    )

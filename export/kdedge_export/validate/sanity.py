"""Whether a map is about the picture, the class and the model at all.

Some maps look convincing and depend on none of these (Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018).
Three changes must each change the map: another class on the same picture, another picture for the same class, and
random weights in the classifier's last layer. The last needs the PyTorch student; the file proves the first two itself.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdedge_export.graph.deployed import Deployed
from kdedge_export.validate import metrics
from kdedge_export.validate.intervals import Interval, mean_interval
from kdedge_export.validate.predict import TorchModel, predict
from kdedge_export.validate.roles import Role
from kdedge_runtime import Model
from kdedge_runtime.arrays import Floats, Integers, Pixels

__all__ = ["CHANGED", "WITHOUT_CLASS", "Sanity", "Test", "sanity"]

Test = Literal["class", "picture", "head"]
WITHOUT_CLASS = frozenset({"eigencam", "attention-rollout"})
"""Methods that show where a model looks and not what for: only another picture can change their maps."""
CHANGED = 0.01
"""A map counts as changed where some cell moves by this share of the map's range."""
_HEADS = 5
"""Random heads, whose figures are averaged image by image."""


@dataclass(frozen=True)
class Sanity:
    """What one change does to the maps of one model."""

    test: Test
    role: Role
    changed: float
    """Share of images in [0, 1] whose map changes (see `CHANGED`)."""
    pearson: float
    """Mean correlation of the maps before and after; NaN where all are constant."""
    intervals: Mapping[str, Interval | None]
    """Of the two."""


def sanity(
    models: Mapping[Role, TorchModel | Model],
    images: Pixels,
    classes: Integers,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Sanity, ...]:
    """Change class, picture and head, and see whether the maps follow.

    Args:
        models: with maps; the head is changed where it is a PyTorch module's.
        images: uint8 RGB `[N, H, W, 3]` at the model's size, N ≥ 1.
        classes: int64 `[N]`, the class to explain in each.
        progress: called with the number of models done.

    Returns:
        A row for each change that can be made: a single class has no other one, a single picture neither.
    """
    rows: list[Sanity] = []
    for number, (role, model) in enumerate(models.items()):
        before = predict(model, images, classes)
        if before.maps is None:
            continue
        count = before.logits.shape[1]
        changes: dict[Test, tuple[Pixels, Integers]] = {}
        if count > 1:
            other = (classes + np.random.default_rng(0).integers(1, count, len(classes))) % count
            changes["class"] = images, other
        if len(images) > 1:
            changes["picture"] = images[metrics.derangement(len(images))], classes
        for test, (pictures, asked) in changes.items():
            rows.append(_row(test, role, [(before.maps, _maps(model, pictures, asked))]))
        if isinstance(model, Deployed) and (weight := _last_weight(model, count)) is not None:
            pairs = []
            for seed in range(_HEADS):
                with _random(weight, seed):
                    pairs.append((before.maps, _maps(model, images, classes)))
            rows.append(_row("head", role, pairs))
        progress(number + 1)
    return tuple(rows)


def _maps(model: TorchModel | Model, images: Pixels, classes: Integers) -> Floats:
    maps = predict(model, images, classes).maps
    assert maps is not None
    return maps


def _row(test: Test, role: Role, pairs: list[tuple[Floats, Floats]]) -> Sanity:
    # A map that is not finite has not followed anything.
    changed = _image_means([np.nan_to_num(metrics.map_error(*pair)) > CHANGED for pair in pairs])
    pearson = _image_means([metrics.map_pearson(*pair) for pair in pairs])
    intervals = {"changed": mean_interval(changed), "pearson": mean_interval(pearson)}
    return Sanity(test, role, metrics.mean(changed), metrics.mean(pearson), intervals)


def _image_means(scores: list[NDArray[np.float64] | NDArray[np.bool_]]) -> NDArray[np.float64]:
    return np.asarray(np.mean([some.astype(np.float64) for some in scores], axis=0))


def _last_weight(model: Deployed, classes: int) -> Tensor | None:
    """The weight whose rows are the classes; None for a network that has none such."""
    weights = [weight for weight in model.explained.model.parameters() if weight.dim() > 1 and len(weight) == classes]
    return weights[-1] if weights else None


@contextmanager
def _random(weight: Tensor, seed: int) -> Iterator[None]:
    """Normal values of the weight's own spread for the time of the block."""
    generator = torch.Generator().manual_seed(seed)
    own = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=generator) * own.std().cpu())
        yield
    finally:
        with torch.no_grad():
            weight.copy_(own)

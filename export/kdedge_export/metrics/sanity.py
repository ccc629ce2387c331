"""Whether a map is about the picture, the class and the model at all.

Some maps look convincing and depend on none of these (Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018).
Three changes must each change the map's shape: another class on the same picture, another picture for the same class,
and random weights in the classifier's last layer. The last needs the PyTorch student; the file proves the first two
itself. A map that is only scaled has not changed: a spot in the middle of every picture times the class's logit shows
nothing. Of two classes, what speaks for one speaks against the other, and an exact negative is a change; of two
pictures it is none, since it lies in the same place.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdedge_export.candidates import Role
from kdedge_export.metrics import agreement
from kdedge_export.metrics.confidence import SHARE, Interval, mean_interval
from kdedge_export.metrics.torch_predictions import TorchModel, predict
from kdedge_export.saliency import ByCells, Dense, Head
from kdedge_export.saliency.tracing import trace
from kdedge_export.torch_export.wrappers import Deployed
from kdedge_runtime import Model
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

__all__ = ["SANE_IMAGES", "WITHOUT_CLASS", "Sanity", "Test", "sanity"]

Test = Literal["class", "picture", "head"]
WITHOUT_CLASS = frozenset({"eigencam", "attention-rollout"})
"""Methods that show where a model looks and not what for: only another picture can change their maps."""
SANE_IMAGES = 64
"""On which a validation asks for this, at most."""
_HEADS = 5
"""Random heads, whose figures are averaged image by image."""


@dataclass(frozen=True)
class Sanity:
    """What one change does to the maps of one model."""

    test: Test
    role: Role
    alike: float
    """Mean over images of how much of the map's shape stays, in [0, 1]: the correlation of the maps before and after,
    below 0 as 0, and for another picture without its sign. 1 where a map is constant before and after, or not finite
    after; 0 where it is constant on one side only."""
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
            changes["picture"] = images[agreement.derangement(len(images))], classes
        for test, (pictures, asked) in changes.items():
            rows.append(_row(test, role, [(before.maps, _maps(model, pictures, asked))]))
        if isinstance(model, Deployed) and (weight := _head_weight(model, images[:1], count)) is not None:
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
    alike = np.mean([_alike(test, *pair) for pair in pairs], axis=0)
    pearson = np.mean([agreement.map_pearson(*pair) for pair in pairs], axis=0)
    intervals = {"alike": mean_interval(alike, SHARE), "pearson": mean_interval(pearson)}
    return Sanity(test, role, agreement.mean(alike), agreement.mean(pearson), intervals)


def _alike(test: Test, before: Floats, after: Floats) -> NDArray[np.float64]:
    """How much of each map's shape stays, `[N]` in [0, 1] (see `Sanity.alike`)."""
    pearson = agreement.map_pearson(before, after)
    stays = np.abs(pearson) if test == "picture" else np.maximum(pearson, 0.0)
    only_one_is_constant = agreement.is_constant(before) != agreement.is_constant(after)
    finite = np.isfinite(after).all(axis=(1, 2))
    return np.where(np.isnan(pearson), np.where(only_one_is_constant & finite, 0.0, 1.0), stays)


def _head_weight(model: Deployed, image: Pixels, classes: int) -> Tensor | None:
    """The weight that makes the logits: the last that runs whose rows are the classes; None where there is none such.

    Modules need not be registered in the order in which they run.
    """
    network = model.explained.model
    if isinstance(model.explained, ByCells) and isinstance(model.explained.head, Head):
        last = model.explained.head.layers[-1]
        assert isinstance(last, Dense)
        return network.get_parameter(last.weight)
    parameters = {id(weight): weight for weight in network.parameters() if weight.dim() > 1 and len(weight) == classes}
    example = torch.from_numpy(image).to(next(network.parameters()).device)
    record = trace(network, model.normalise(example))
    used = (id(value) for operation in reversed(record.operations) for value in operation.inputs)
    return next((parameters[number] for number in used if number in parameters), None)


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

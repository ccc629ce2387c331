"""Sanity checks: maps must depend on the sample, the class and the model.

Some maps look convincing and depend on none of these (Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018).
Three changes must each change the map's shape: another class on the same sample, another sample for the same class, and
random weights in the classifier's last layer. The last one needs the PyTorch student; the first two run on the file
alone. Rescaling is not a change, since a fixed spot times the class's logit explains nothing. For two classes an exact
negative counts as a change, since evidence for one is evidence against the other. For two samples it does not, since it
lies in the same place.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdedge_export.metrics import map_similarity
from kdedge_export.metrics.confidence import SHARE, Interval, mean_interval
from kdedge_export.metrics.scores import mean
from kdedge_export.metrics.torch_predictions import TorchModel, predict
from kdedge_export.saliency import CAMExplainer, ClosedFormHead, DenseExplainer, DenseHeadLayer, find_cosine_layer
from kdedge_export.saliency.tracing import trace
from kdedge_export.torch_export.wrappers import ExportableModel
from kdedge_runtime import Model
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

__all__ = ["MAX_SANITY_SAMPLES", "Sanity", "Test", "sanity"]

Test = Literal["class", "sample", "head"]
MAX_SANITY_SAMPLES = 64
"""Maximum number of samples for sanity checks."""
_HEADS = 5
"""Number of random heads, averaged per sample."""


@dataclass(frozen=True)
class Sanity:
    """Effect of one change on the maps of one model."""

    test: Test
    model: str
    map_similarity: float
    """Mean over samples of the map similarity in [0, 1]: the correlation of the maps before and after, with negative
    values as 0, or the absolute value for another sample. It is 1 if both maps are constant or the second is not
    finite, and 0 if only one is constant."""
    pearson: float
    """Mean correlation of the maps before and after; NaN if all are constant."""
    intervals: Mapping[str, Interval | None]
    """95% intervals by field name."""


def sanity(
    models: Mapping[str, TorchModel | Model],
    samples: Pixels,
    classes: Integers,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Sanity, ...]:
    """Measure the effect of another class, another sample and a random head on the maps.

    Args:
        models: models with maps; the head is randomized only for PyTorch modules.
        samples: preprocessed samples `[N, …]` at the model's size, N ≥ 1.
        classes: int64 `[N]`, the class to explain in each.
        progress: called with the number of models done.

    Returns:
        One row for each possible change; a single class or a single sample allows none.
    """
    rows: list[Sanity] = []
    for number, (role, model) in enumerate(models.items()):
        before = predict(model, samples, classes)
        if before.maps is None:
            continue
        count = before.logits.shape[1]
        changes: dict[Test, tuple[Pixels, Integers]] = {}
        if count > 1:
            other = (classes + np.random.default_rng(0).integers(1, count, len(classes))) % count
            changes["class"] = samples, other
        if len(samples) > 1:
            changes["sample"] = samples[map_similarity.permute_pairs(len(samples))], classes
        for test, (changed_samples, requested) in changes.items():
            rows.append(_row(test, role, [(before.maps, _maps(model, changed_samples, requested))]))
        if isinstance(model, ExportableModel) and (weight := _head_weight(model, samples[:1], count)) is not None:
            pairs = []
            for seed in range(_HEADS):
                with _random(weight, seed):
                    pairs.append((before.maps, _maps(model, samples, classes)))
            rows.append(_row("head", role, pairs))
        progress(number + 1)
    return tuple(rows)


def _maps(model: TorchModel | Model, samples: Pixels, classes: Integers) -> Floats:
    maps = predict(model, samples, classes).maps
    assert maps is not None
    return maps


def _row(test: Test, role: str, pairs: list[tuple[Floats, Floats]]) -> Sanity:
    similarity = np.mean([_similarity(test, *pair) for pair in pairs], axis=0)
    pearson = np.mean([map_similarity.map_pearson(*pair) for pair in pairs], axis=0)
    intervals = {"map_similarity": mean_interval(similarity, SHARE), "pearson": mean_interval(pearson)}
    return Sanity(test, role, mean(similarity), mean(pearson), intervals)


def _similarity(test: Test, before: Floats, after: Floats) -> NDArray[np.float64]:
    """Compute the similarity of each map before and after, `[N]` in [0, 1] (see `Sanity.map_similarity`)."""
    pearson = map_similarity.map_pearson(before, after)
    stays = np.abs(pearson) if test == "sample" else np.maximum(pearson, 0.0)
    only_one_is_constant = map_similarity.is_constant(before) != map_similarity.is_constant(after)
    finite = np.isfinite(after).all(axis=(1, 2))
    return np.where(np.isnan(pearson), np.where(only_one_is_constant & finite, 0.0, 1.0), stays)


def _head_weight(model: ExportableModel, sample: Pixels, classes: int) -> Tensor | None:
    """Return the weight that produces the logits: prototypes, or the last one used whose rows are the classes; or None.

    Modules need not be registered in execution order.
    """
    network = model.explained.model
    if (cosine := find_cosine_layer(network)) is not None:
        return cosine.prototypes
    if isinstance(model.explained, DenseExplainer):
        return network.get_parameter(model.explained.last_weight)
    if isinstance(model.explained, CAMExplainer) and isinstance(model.explained.head, ClosedFormHead):
        last = model.explained.head.layers[-1]
        assert isinstance(last, DenseHeadLayer)
        return network.get_parameter(last.weight)
    parameters = {id(weight): weight for weight in network.parameters() if weight.dim() > 1 and len(weight) == classes}
    example = torch.from_numpy(sample).to(next(network.parameters()).device)
    record = trace(network, model.front_end(example))
    used = (id(value) for operation in reversed(record.operations) for value in operation.inputs)
    return next((parameters[number] for number in used if number in parameters), None)


@contextmanager
def _random(weight: Tensor, seed: int) -> Iterator[None]:
    """Replace a weight by normal noise of the same standard deviation inside the block."""
    generator = torch.Generator().manual_seed(seed)
    own = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=generator) * own.std().cpu())
        yield
    finally:
        with torch.no_grad():
            weight.copy_(own)

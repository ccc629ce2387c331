"""Batched predictions of a model file without PyTorch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from kdedge_runtime import Model
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

__all__ = ["Batch", "Predictions", "batch_size", "batches", "embed", "gather", "run_file"]


@dataclass(frozen=True)
class Predictions:
    """Logits and saliency maps of a model for all samples."""

    logits: Floats
    """Logits `[N, K]`."""
    maps: Floats | None
    """Raw signed maps `[N, h, w]`; None if the model has no map."""
    explained_class: Integers
    """int64 `[N]`, the class each map explains, as reported by the model."""


Batch: TypeAlias = tuple[Integers, Floats, Floats | None, Integers]
"""Sample indices `[n]`, their logits, maps and explained classes."""


def batch_size(model: Model, most: int) -> int:
    """Return the batch size of a file: `most`, or 1 if its graph has a fixed batch of one sample."""
    (own,) = (item for item in model.session.get_inputs() if item.name == model.metadata.input.name)
    return 1 if isinstance(own.shape[0], int) else most


def run_file(model: Model, samples: Pixels, classes: Integers, size: int) -> Iterator[Batch]:
    """Run a model file over samples in batches.

    Args:
        model: model file.
        samples: preprocessed samples `[N, …]` at the model's size.
        classes: int64 `[N]`, the class to explain in each sample; negative for its top-1 class.
        size: maximum batch size.
    """
    # A model file explains one class per batch, so samples are grouped by requested class.
    for requested in np.unique(classes):
        of_this_class = np.flatnonzero(classes == requested)
        for batch in batches(of_this_class, batch_size(model, size)):
            result = model.predict(samples[batch], class_index=None if requested < 0 else int(requested))
            yield batch, result.logits, result.saliency_map, result.explained_class


def embed(model: Model, samples: Sample, size: int = 32) -> Floats:
    """Compute the embeddings `[N, D]` of samples `[N, …]`, N ≥ 1, in batches of at most `size`.

    Raises:
        ModelFileError: the file has no embedding.
    """
    parts = [
        model.predict(samples[batch], explained=False).embedding
        for batch in batches(np.arange(len(samples)), batch_size(model, size))
    ]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        raise ModelFileError(f"{model.path} has no output embedding, unlike its fp32 file. Export both again.")
    return np.concatenate(found)


def batches(numbers: Integers, size: int) -> Iterator[Integers]:
    """Split sample indices into batches of at most `size`."""
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def gather(found: Iterator[Batch], n: int, progress: Callable[[int], None] | None = None) -> Predictions:
    """Concatenate batches in sample order.

    Args:
        found: batches that cover all samples.
        n: number of samples.
        progress: called with the number of samples done so far, after every batch.
    """
    numbers, logits, maps, explained = [], [], [], []
    done = 0
    for batch in found:
        numbers.append(batch[0])
        logits.append(batch[1])
        if batch[2] is not None:
            maps.append(batch[2])
        explained.append(batch[3])
        done += len(batch[0])
        if progress is not None:
            progress(done)
    order = np.argsort(np.concatenate(numbers))
    return Predictions(
        np.concatenate(logits)[order],
        np.concatenate(maps)[order] if maps else None,
        np.concatenate(explained)[order],
    )

"""Samples for familiarity, and the threshold of an exported file."""

from dataclasses import dataclass

import numpy as np

from kdedge_export.familiarity.threshold import fewest_known, fit_threshold
from kdedge_export.metrics.file_predictions import batch_size, batches
from kdedge_runtime import Model
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.familiarity import Familiarity
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Floats, Targets

__all__ = ["FamiliaritySamples", "familiarity_of", "with_threshold"]

_BATCH = 32


@dataclass(frozen=True)
class FamiliaritySamples:
    """Samples of known classes at the model's input size."""

    training: Sample | None = None
    """Training samples `[N, *spec.shape]` for the statistics; None uses the energy of the logits."""
    targets: Targets | None = None
    """Classes of the training samples, int64 `[N]`; None takes the predicted classes."""
    known: Sample | None = None
    """Validation samples for the threshold; None leaves it open."""
    why_not: str = "no validation samples were given"
    """Reason for missing samples."""


def with_threshold(model: Model, familiarity: Familiarity, samples: FamiliaritySamples) -> Familiarity:
    """Fit the threshold on the known samples.

    Args:
        model: exported file.
        familiarity: its description, without a threshold.
        samples: samples of the known classes.

    Returns:
        The description with a threshold, or with the reason why there is none.
    """
    needed = f"{fewest_known()} are needed"
    if samples.known is None:
        return Familiarity(familiarity.method, why_not=samples.why_not)
    scores = familiarity_of(model, samples.known)
    fitted = fit_threshold(scores)
    if fitted is None:
        return Familiarity(familiarity.method, why_not=f"{len(scores)} validation samples are too few; {needed}")
    return Familiarity(familiarity.method, fitted.value, fitted.known, fitted.rejected, fitted.most_rejected)


def familiarity_of(model: Model, samples: Sample) -> Floats:
    """Return the familiarity `[N]` of samples.

    Raises:
        ModelFileError: the file has no output `familiarity`, or a value is not finite.
    """
    found = []
    for batch in batches(np.arange(len(samples)), batch_size(model, _BATCH)):
        scores = model.predict(samples[batch], explained=False).familiarity
        if scores is None or not np.isfinite(scores).all():
            raise ModelFileError(
                f"{model.path} has no finite familiarity for every sample. Expected an output familiarity of finite "
                "numbers. Export it again, from weights that are trained."
            )
        found.append(scores)
    return np.concatenate(found) if found else np.empty(0, dtype=np.float32)

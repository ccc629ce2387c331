"""Thresholds of a file: of familiarity, and of enrolled classes.

At most 5% of known samples are less similar to the class means of the file itself than the threshold of enrolled
classes.

Prototypes of a file are those of its teacher, while enrolled ones are means of the file's own embeddings. Samples are
more similar to these, so the file's own class means stand for enrolled classes.
"""

from dataclasses import replace

import numpy as np

from kdedge_export.familiarity.fitting import FamiliaritySamples, familiarity_of, with_threshold
from kdedge_export.familiarity.threshold import fit_threshold
from kdedge_export.metrics.file_predictions import embed
from kdedge_runtime import Metadata, Model

__all__ = ["enrollment_threshold", "with_thresholds"]


def with_thresholds(model: Model, metadata: Metadata, samples: FamiliaritySamples) -> Metadata:
    """Fit the thresholds of a file, as far as it has familiarity and an embedding.

    Args:
        model: exported file.
        metadata: its metadata, whose threshold of enrolled classes stays if no other can be fitted.
        samples: samples of the known classes.

    Returns:
        The metadata with the thresholds.
    """
    if metadata.familiarity is not None:
        metadata = replace(metadata, familiarity=with_threshold(model, metadata.familiarity, samples))
    threshold = None if metadata.embedding is None else enrollment_threshold(model, samples)
    if metadata.embedding is not None and threshold is not None:
        metadata = replace(metadata, embedding=replace(metadata.embedding, threshold=threshold))
    return metadata


def enrollment_threshold(model: Model, samples: FamiliaritySamples) -> float | None:
    """Fit the threshold of enrolled classes.

    Args:
        model: exported embedding model.
        samples: labeled training samples for the class means, and known validation samples.

    Returns:
        The threshold; None without samples, or with too few (see `fewest_known`).

    Raises:
        ModelFileError: an embedding is not finite.
    """
    if samples.training is None or samples.targets is None or samples.known is None:
        return None
    embeddings, labels = embed(model, samples.training), model.metadata.labels
    present = np.unique(samples.targets)
    means = np.stack([embeddings[samples.targets == each].mean(axis=0) for each in present])
    enrolled = model.with_classes([labels[each] for each in present], means)
    fitted = fit_threshold(familiarity_of(enrolled, samples.known))
    return None if fitted is None else fitted.value

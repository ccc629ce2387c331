"""Enrollment of samples: their embeddings, and how well they fit their class and differ from the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdedge_runtime.embedding import EMBEDDING
from kdedge_runtime.enrolled_classes import EnrolledClasses
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.model import Model
from kdedge_runtime.util.arrays import Floats, normalize_rows

__all__ = ["EnrolledSample", "embed_sample", "enrolled_samples", "enrollment_table", "enrollment_warnings"]

_MAX_NAME_LENGTH = 32
_MIN_LENGTH = 1e-4


@dataclass(frozen=True)
class EnrolledSample:
    """Similarity of an enrolled sample to the classes."""

    name: str
    own: float | None
    """Cosine similarity to the mean of the other samples of its class; None if there is no other sample."""
    nearest: str | None
    """Nearest other class; None if there is none."""
    nearest_similarity: float | None
    """Cosine similarity to the nearest other class."""

    @property
    def is_nearer_to_another(self) -> bool:
        """True if another class is nearer than the other samples of its own class."""
        return self.own is not None and self.nearest_similarity is not None and self.nearest_similarity > self.own


def embed_sample(model: Model, sample: Sample, name: str) -> Floats:
    """Return the L2-normalized embedding `[D]` of a raw sample.

    Args:
        model: embedding model.
        sample: raw sample, such as an image uint8 RGB `[H, W, 3]`.
        name: name of the sample, for error messages.

    Raises:
        UsageError: the model has no embedding.
        ModelFileError: the embedding is not finite.
    """
    embedding = model.predict(model.metadata.input.preprocess(sample)[None], explained=False).embedding
    if embedding is None:
        raise UsageError(f"{model.path.name} has no embedding. Expected a model of the task {EMBEDDING}.")
    if not np.isfinite(embedding).all():
        raise ModelFileError(
            f"{model.path.name} returned a non-finite embedding for {name}: the model is damaged or its number format "
            "overflows. Export it again and run `kdedge validate`."
        )
    row: Floats = embedding[0]
    return row


def enrolled_samples(
    classes: EnrolledClasses, name: str, samples: Sequence[str], embeddings: Floats
) -> tuple[EnrolledSample, ...]:
    """Compare samples with the other samples of their class and with the other classes.

    Args:
        classes: classes after the samples were added.
        name: class of the samples.
        samples: names of the samples.
        embeddings: L2-normalized embeddings of the samples, `[N, D]`.
    """
    (own,) = (each for each in classes.classes if each.name == name)
    others = [each for each in classes.classes if each is not own]
    directions = normalize_rows(np.stack([each.prototype for each in others])) if others else None
    found = []
    for sample, embedding in zip(samples, embeddings, strict=True):
        similarity = None
        if own.samples > 1:
            mean = (own.samples * own.prototype.astype(np.float64) - embedding) / (own.samples - 1)
            # Opposite samples leave only rounding errors.
            similarity = float(mean @ embedding) / max(float(np.linalg.norm(mean)), _MIN_LENGTH)
        nearest, nearest_similarity = None, None
        if directions is not None:
            similarities = directions @ embedding
            index = int(similarities.argmax())
            nearest, nearest_similarity = others[index].name, float(similarities[index])
        found.append(EnrolledSample(sample, similarity, nearest, nearest_similarity))
    return tuple(found)


def enrollment_table(samples: Sequence[EnrolledSample]) -> str:
    """Return the similarities as text, one line a sample, without a trailing newline."""
    width = max(len("sample"), *(len(_short(each.name)) for each in samples))
    lines = [f"{'sample':{width}}  own class  nearest other class"]
    for each in samples:
        own = "–" if each.own is None else f"{each.own:z.2f}"
        other = "–" if each.nearest_similarity is None else f"{each.nearest_similarity:z.2f}  {each.nearest}"
        lines.append(f"{_short(each.name):{width}}  {own:>9}  {other}")
    return "\n".join(lines)


def enrollment_warnings(samples: Sequence[EnrolledSample], threshold: float | None) -> list[str]:
    """Return one sentence for each sample that will be recognized badly.

    Args:
        samples: samples of one class.
        threshold: similarity below which a sample is unknown; None for no threshold.
    """
    found = []
    if any(each.own is None for each in samples):
        found.append("The class has a single sample, so that nothing can be compared. Add 4 others or more.")
    for each in samples:
        if each.own is None:
            continue
        if each.is_nearer_to_another:
            found.append(
                f"{each.name} is nearer to {each.nearest} ({each.nearest_similarity:.2f}) than to the other samples of "
                f"its class ({each.own:.2f}). Check that it shows this class."
            )
        elif threshold is not None and each.own < threshold:
            found.append(
                f"{each.name} would be unknown: its similarity to the other samples of its class is {each.own:.2f}, "
                f"below the threshold of {threshold:.2f}. Add similar samples, or set a lower --threshold."
            )
    return found


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME_LENGTH else "…" + name[1 - _MAX_NAME_LENGTH :]

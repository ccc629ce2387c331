"""What runs and their teachers say of the validation pictures, and why."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from kdedge.data import scan
from kdedge.models.trained_model import TrainedModel
from kdedge.pipelines.origins import as_model_classes
from kdedge.pipelines.run_history import RunHistory
from kdedge.pipelines.validation_images import read_validation_side
from kdedge_export.errors import HeadNotSupported
from kdedge_export.metrics.torch_predictions import Predictions, predict
from kdedge_export.torch_export.wrappers import Deployed, Plain, deploy
from kdedge_runtime import Model
from kdedge_runtime.errors import DataError
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["Answers", "Pictures", "Questions"]

Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pictures:
    """The validation pictures of a data set at a model's size."""

    source: str
    labels: tuple[str, ...]
    fingerprint: str
    images: Pixels
    """uint8 RGB `[N, H, W, 3]`."""
    targets: Integers
    """int64 `[N]`, index into the labels."""
    names: tuple[str, ...]
    """Of each, unique in the data set."""
    part: str | None = None
    """Where they are not all, which."""


@dataclass(frozen=True)
class Answers:
    """A model's answers to pictures, with maps of the right class of each."""

    title: str
    """The run's name, or the teacher's."""
    pictures: Pictures
    labels: tuple[str, ...]
    """Of the model."""
    predictions: Predictions

    @property
    def right(self) -> Integers:
        """int64 `[N]`, the right classes as indices into the model's labels."""
        return _right(self.pictures, self.labels)


@dataclass
class Questions:
    """Asks models about pictures; every folder is read once a size."""

    data: str | None
    """Pictures for all runs; None asks each about its own."""
    models: int
    """How many will be asked, for the progress."""
    progress: Progress
    _asked: int = field(default=0, init=False)
    _read: dict[tuple[str, ImageInput], Pictures] = field(default_factory=dict, init=False)

    def ask(self, title: str, trained: TrainedModel | Model, run: RunHistory) -> Answers:
        """Have a model classify the validation pictures and explain the right class of each.

        Args:
            title: what to call the model.
            trained: the model, or a teacher's file; one whose head has no closed-form map only answers.
            run: the one that the model comes from or has taught: it says which pictures, and what the classes are.

        Raises:
            DataError: the pictures are gone, cannot be read, or are of classes that the model does not know.
        """
        spec = trained.metadata.input if isinstance(trained, Model) else trained.input
        pictures = self._pictures(self.data or run.data, spec)
        right, total = _right(pictures, run.record.labels), len(pictures.names)
        before, all_models = self._asked * total, self.models * total
        predictions = predict(
            trained if isinstance(trained, Model) else _module(trained),
            pictures.images,
            right,
            progress=lambda done: self.progress("asking models", before + done, all_models),
        )
        self._asked += 1
        return Answers(title, pictures, run.record.labels, predictions)

    def _pictures(self, source: str, spec: ImageInput) -> Pictures:
        if (source, spec) not in self._read:
            collection = scan(source)
            decoded, part = read_validation_side(collection, spec, self.progress)
            if not len(decoded):
                raise DataError(f"{source} has no validation picture that can be read. Name others with --data.")
            self._read[source, spec] = Pictures(
                source=collection.source,
                labels=collection.labels,
                fingerprint=collection.fingerprint,
                images=decoded.images,
                targets=decoded.targets,
                names=tuple(sample.name for sample in decoded.samples),
                part=part,
            )
        return self._read[source, spec]


def _module(trained: TrainedModel) -> Deployed | Plain:
    try:
        return deploy(trained.model, trained.input)
    except HeadNotSupported:
        return Plain(trained.model, trained.input)


def _right(pictures: Pictures, labels: tuple[str, ...]) -> Integers:
    """The right classes, counted as the model counts them."""
    return as_model_classes(pictures.targets, pictures.labels, labels, pictures.source)

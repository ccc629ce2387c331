"""What is measured beyond answers and maps on all images: on a sample of them, since each image is asked many times."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from kdedge_export.candidates import Role, origin
from kdedge_export.metrics.calibration import Calibration, calibration
from kdedge_export.metrics.faithfulness import FAITH_IMAGES, Faithfulness, faithfulness
from kdedge_export.metrics.localization import Localisation, localise_all
from kdedge_export.metrics.robustness import DISTURBANCES, Robustness, robustness
from kdedge_export.metrics.sanity import SANE_IMAGES, Sanity, sanity
from kdedge_export.metrics.torch_predictions import Predictions, TorchModel, predict
from kdedge_export.validate.exactness import Bounds
from kdedge_export.validate.other_classes import OTHER_CLASS_IMAGES, OtherClasses, compare_other_classes
from kdedge_runtime import Model
from kdedge_runtime.util.arrays import Floats, Integers, Pixels, evenly_spaced

__all__ = ["Progress", "Sampled", "Subject", "calibrated", "disturbed_answers", "faith", "other_maps", "places", "sane"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much there is of it, and how much is done."""
DISTURBED_IMAGES = 96
"""Images that are disturbed, at most."""

Rows = TypeVar("Rows")
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Sampled(Generic[Rows]):
    """What was found on some of the images."""

    images: int
    """How many, evenly spaced among all."""
    rows: Rows


@dataclass(frozen=True)
class Subject:
    """Models and images under validation, and what the models said of all images."""

    models: Mapping[Role, TorchModel | Model]
    predictions: Mapping[Role, Predictions]
    images: Pixels
    targets: Integers | None
    shipped: Role
    progress: Progress

    @property
    def files(self) -> dict[Role, Model]:
        """The models that are files."""
        return {role: model for role, model in self.models.items() if role != "teacher" and isinstance(model, Model)}

    @property
    def origin(self) -> Role:
        """The model that all maps explain the answers of: the PyTorch student, else the fp32 file."""
        return origin(self.models)

    @property
    def shipped_file(self) -> Model:
        """The file that goes to the device."""
        return self.files[self.shipped]

    @property
    def shifts(self) -> dict[Role, tuple[float, float]]:
        """Displacement of each model's maps, in cells, as its file states it; a teacher's is not known."""
        of_files = {role: file.metadata.outputs.display.shift for role, file in self.files.items()}
        return {role: of_files.get(role, of_files["fp32"]) for role in self.models if role != "teacher"}

    def sample(self, most: int) -> Integers:
        """Numbers of at most so many images, evenly spaced."""
        return evenly_spaced(len(self.images), most)

    def told(self, what: str, total: int) -> Callable[[int], None]:
        """A listener to one study, which begins."""
        self.progress(what, total, 0)
        return lambda done: self.progress(what, total, done)


def calibrated(subject: Subject, held_out: Flags | None, temperatures: Mapping[Role, float]) -> dict[Role, Calibration]:
    """The calibration of every model on images that have not fitted the temperature; empty without labels."""
    if subject.targets is None:
        return {}
    chosen = np.flatnonzero(np.ones(len(subject.images), dtype=np.bool_) if held_out is None else held_out)
    if not len(chosen):
        return {}
    return {
        role: calibration(answers.logits[chosen], subject.targets[chosen], temperatures[role])
        for role, answers in subject.predictions.items()
    }


def sane(subject: Subject) -> Sampled[tuple[Sanity, ...]] | None:
    """Whether student's and files' maps follow class, picture and head; None where the shipped file has none."""
    models: dict[Role, TorchModel | Model] = {
        role: model
        for role, model in subject.models.items()
        if role != "teacher" and subject.predictions[role].maps is not None
    }
    chosen = subject.sample(SANE_IMAGES)
    if subject.predictions[subject.shipped].maps is None:
        return None
    asked = subject.predictions[subject.origin].explained_class[chosen]
    told = subject.told("sanity of the maps", len(models))
    return Sampled(len(chosen), sanity(models, subject.images[chosen], asked, told))


def other_maps(subject: Subject, bounds: Bounds) -> OtherClasses | None:
    """Files' maps of another class than the top one, against the origin's; None without another class or a map."""
    reference, answers = subject.models[subject.origin], subject.predictions[subject.origin]
    count = answers.logits.shape[1]
    if count < 2 or answers.maps is None or subject.predictions["fp32"].maps is None:
        return None
    chosen = subject.sample(OTHER_CLASS_IMAGES)
    told = subject.told("maps of other classes", 1)
    top = answers.logits[chosen].argmax(axis=1)
    found = compare_other_classes(reference, subject.files, subject.images[chosen], top, count, bounds)
    told(1)
    return found


def places(subject: Subject, masks: Sequence[Flags | None]) -> Sampled[dict[str, Localisation]] | None:
    """Whether all models' maps of the right class find the object; None where no image tells where it is.

    Without labels the maps are of the origin's answer.
    """
    chosen = np.array([number for number, mask in enumerate(masks) if mask is not None and mask.any()], dtype=np.int64)
    with_maps = {role: answers for role, answers in subject.predictions.items() if answers.maps is not None}
    if not len(chosen) or not with_maps:
        return None
    told = subject.told("pointing at objects", len(with_maps))
    maps: dict[str, Floats] = {}
    for done, (role, answers) in enumerate(with_maps.items(), 1):
        maps[role] = _maps_of_the_right_class(subject, role, answers, chosen)
        told(done)
    known = [mask for mask in masks if mask is not None and mask.any()]
    shifts = {str(role): shift for role, shift in subject.shifts.items()}
    return Sampled(len(chosen), localise_all(maps, subject.images[chosen], known, shifts))


def faith(subject: Subject) -> Sampled[dict[str, Faithfulness]] | None:
    """How much the shipped file's answer rests on what teacher, student's file and its own maps point at."""
    maps = {
        role: answers.maps
        for role, answers in subject.predictions.items()
        if role != "student" and answers.maps is not None  # the fp32 file's are the same
    }
    if subject.predictions[subject.shipped].maps is None:
        return None
    chosen = subject.sample(FAITH_IMAGES)
    told = subject.told("faithfulness", (len(maps) + 2) * 2 * len(chosen))
    classes = subject.predictions[subject.origin].explained_class[chosen]
    some = {str(role): of_all[chosen] for role, of_all in maps.items()}
    return Sampled(len(chosen), faithfulness(subject.shipped_file, some, subject.images[chosen], classes, told))


def disturbed_answers(subject: Subject) -> Sampled[tuple[Robustness, ...]]:
    """Answers and maps on disturbed pictures."""
    chosen = subject.sample(DISTURBED_IMAGES)
    targets = None if subject.targets is None else subject.targets[chosen]
    told = subject.told("robustness", len(DISTURBANCES))
    rows = robustness(subject.models[subject.origin], subject.files, subject.images[chosen], targets, told)
    return Sampled(len(chosen), rows)


def _maps_of_the_right_class(subject: Subject, role: Role, answers: Predictions, chosen: Integers) -> Floats:
    assert answers.maps is not None
    maps = answers.maps[chosen].copy()
    if subject.targets is None:
        return maps
    # Most maps are of the right class already.
    wrong = np.flatnonzero(answers.explained_class[chosen] != subject.targets[chosen])
    if len(wrong):
        again = predict(subject.models[role], subject.images[chosen[wrong]], subject.targets[chosen[wrong]]).maps
        assert again is not None
        maps[wrong] = again
    return maps

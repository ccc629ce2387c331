"""Measurements on some of the samples, since each needs many forward passes per sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from kdedge_export.candidates import STUDENT, TEACHER, origin, shipped
from kdedge_export.metrics.calibration import Calibration, calibration
from kdedge_export.metrics.faithfulness import FAITH_SAMPLES, Faithfulness, faithfulness
from kdedge_export.metrics.file_predictions import embed
from kdedge_export.metrics.localization import Localization, localize_all
from kdedge_export.metrics.resampling import area_mean
from kdedge_export.metrics.robustness import Robustness, robustness
from kdedge_export.metrics.sanity import SANE_SAMPLES, Sanity, sanity
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_export.metrics.torch_predictions import Predictions, TorchModel, predict
from kdedge_export.metrics.unfamiliar import Recognition, recognition
from kdedge_export.metrics.verification import Verification, choose_verified, verification
from kdedge_export.modalities import modality_of
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.validation.exactness import Bounds
from kdedge_export.validation.other_classes import OTHER_CLASS_SAMPLES, OtherClasses, compare_other_classes
from kdedge_runtime import Model
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.modalities import InputSpec, Sample
from kdedge_runtime.precision import FP32
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Floats, Integers, Pixels, Targets, evenly_spaced
from kdedge_runtime.util.progress import ProgressCallback

__all__ = [
    "Sampled",
    "MeasuredModel",
    "measure_calibration",
    "measure_recognition",
    "measure_robustness",
    "measure_faithfulness",
    "other_maps",
    "measure_localization",
    "measure_sanity",
    "measure_verification",
]

CORRUPTED_SAMPLES = 96
"""Maximum number of samples to corrupt."""
DRAWN_SAMPLES = 200
"""Number of drawn unfamiliar samples."""

Rows = TypeVar("Rows")
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Sampled(Generic[Rows]):
    """Results measured on some of the samples."""

    samples: int
    """Number of samples, which are evenly spaced among all."""
    rows: Rows


@dataclass(frozen=True)
class MeasuredModel:
    """Models and samples under validation, with the models' predictions for all samples."""

    models: Mapping[Candidate, TorchModel | Model]
    predictions: Mapping[str, Predictions]
    """Predictions by name."""
    samples: Pixels
    targets: Targets | None
    progress: ProgressCallback

    @property
    def by_name(self) -> dict[str, TorchModel | Model]:
        """Models by name."""
        return {candidate.name: model for candidate, model in self.models.items()}

    @property
    def files(self) -> dict[str, Model]:
        """Exported files by name."""
        return {
            candidate.name: model
            for candidate, model in self.models.items()
            if candidate.precision is not None and isinstance(model, Model)
        }

    @property
    def compared_files(self) -> list[str]:
        """Names of the exported files but the fp32 file."""
        return [name for name in self.files if name != FP32.name]

    @property
    def origin(self) -> str:
        """Name of the model whose predictions all maps explain: the PyTorch student, or the fp32 file without one."""
        return origin(self.models).name

    @property
    def shipped(self) -> str:
        """Name of the deployed file, that of the least exact precision."""
        return shipped(self.models).name

    @property
    def shipped_file(self) -> Model:
        """Model file for the device."""
        return self.files[self.shipped]

    @property
    def task(self) -> TaskMetrics:
        """Metrics of the models' task."""
        return EXPORT_TASKS[self.shipped_file.metadata.task]

    @property
    def has_classes(self) -> bool:
        """True if predictions are classes, False if they are values."""
        return TASKS[self.shipped_file.metadata.task].has_classes

    @property
    def class_targets(self) -> Integers | None:
        """Target classes; None without labels, or for a task without classes."""
        return self.targets if self.has_classes else None

    @property
    def input(self) -> InputSpec:
        """Input of the models."""
        return self.shipped_file.metadata.input

    @property
    def shifts(self) -> dict[str, tuple[float, float]]:
        """Displacement of each model's maps from its file's metadata, in map positions; unknown for a teacher."""
        of_files = {role: file.metadata.outputs.display.shift for role, file in self.files.items()}
        fp32 = of_files[FP32.name]
        return {each.name: of_files.get(each.name, fp32) for each in self.models if each != TEACHER}

    def sample(self, most: int) -> Integers:
        """Return at most `most` evenly spaced sample indices."""
        return evenly_spaced(len(self.samples), most)

    def start_step(self, what: str, total: int) -> Callable[[int], None]:
        """Report the start of a step and return its progress callback."""
        self.progress(what, 0, total)
        return lambda done: self.progress(what, done, total)


def measure_calibration(
    subject: MeasuredModel, held_out: Flags | None, temperatures: Mapping[str, float]
) -> dict[str, Calibration]:
    """Compute every model's calibration on samples not used to fit the temperature.

    Empty without labels, or for a task without probabilities.
    """
    targets = subject.class_targets
    if targets is None or not subject.task.has_probabilities:
        return {}
    chosen = np.flatnonzero(np.ones(len(subject.samples), dtype=np.bool_) if held_out is None else held_out)
    if not len(chosen):
        return {}
    return {
        role: calibration(found.logits[chosen], targets[chosen], temperatures[role])
        for role, found in subject.predictions.items()
    }


def measure_sanity(subject: MeasuredModel) -> Sampled[tuple[Sanity, ...]] | None:
    """Run the sanity checks on the student's and the files' maps; None if the deployed file has none."""
    models = {
        role: model
        for role, model in subject.by_name.items()
        if role != TEACHER.name and subject.predictions[role].maps is not None
    }
    chosen = subject.sample(SANE_SAMPLES)
    if subject.predictions[subject.shipped].maps is None:
        return None
    requested = subject.predictions[subject.origin].explained_class[chosen]
    advance = subject.start_step("sanity checks", len(models))
    return Sampled(len(chosen), sanity(models, subject.samples[chosen], requested, advance))


def other_maps(subject: MeasuredModel, bounds: Bounds) -> OtherClasses | None:
    """Compare the files' maps of another class with the reference; None without another class or a map."""
    reference, found = subject.by_name[subject.origin], subject.predictions[subject.origin]
    count = found.logits.shape[1]
    if count < 2 or found.maps is None or subject.predictions[FP32.name].maps is None:
        return None
    chosen = subject.sample(OTHER_CLASS_SAMPLES)
    advance = subject.start_step("maps of other classes", 1)
    top = found.logits[chosen].argmax(axis=1)
    compared = compare_other_classes(
        reference, subject.files, subject.samples[chosen], top, count, bounds, subject.task
    )
    advance(1)
    return compared


def measure_localization(
    subject: MeasuredModel, masks: Sequence[Flags | None]
) -> Sampled[dict[str, Localization]] | None:
    """Measure how well all models' maps of the target class localize the object; None without known regions.

    Without labels the maps explain the prediction of the student or fp32 file.
    """
    chosen = np.array([number for number, mask in enumerate(masks) if mask is not None and mask.any()], dtype=np.int64)
    with_maps = {role: found for role, found in subject.predictions.items() if found.maps is not None}
    if not len(chosen) or not with_maps:
        return None
    advance = subject.start_step("localization", len(with_maps))
    maps: dict[str, Floats] = {}
    for done, (role, found) in enumerate(with_maps.items(), 1):
        maps[role] = _maps_of_the_right_class(subject, role, found, chosen)
        advance(done)
    known = [mask for mask in masks if mask is not None and mask.any()]
    edges = _references(subject, chosen, maps)
    shifts = {str(role): shift for role, shift in subject.shifts.items()}
    return Sampled(len(chosen), localize_all(maps, known, shifts, edges))


def measure_faithfulness(subject: MeasuredModel) -> Sampled[dict[str, Faithfulness]] | None:
    """Measure the faithfulness of the teacher's, the fp32 file's and the deployed file's maps."""
    maps = {
        role: found.maps
        for role, found in subject.predictions.items()
        if role != STUDENT.name and found.maps is not None  # the fp32 file's maps are the same
    }
    if subject.predictions[subject.shipped].maps is None:
        return None
    chosen = subject.sample(FAITH_SAMPLES)
    advance = subject.start_step("faithfulness", (len(maps) + 2) * 2 * len(chosen))
    classes = subject.predictions[subject.origin].explained_class[chosen]
    some = {str(role): of_all[chosen] for role, of_all in maps.items()}
    samples, modality = subject.samples[chosen], modality_of(subject.input)
    references = _references(subject, chosen, some)
    rows = faithfulness(subject.shipped_file, some, samples, classes, modality.smoothed, references, advance)
    return Sampled(len(chosen), rows)


def measure_robustness(subject: MeasuredModel) -> Sampled[tuple[Robustness, ...]]:
    """Measure predictions and maps on corrupted samples."""
    chosen = subject.sample(CORRUPTED_SAMPLES)
    targets = None if subject.targets is None else subject.targets[chosen]
    corruptions = modality_of(subject.input).corruptions
    advance = subject.start_step("robustness", len(corruptions))
    rows = robustness(
        subject.by_name[subject.origin],
        subject.files,
        subject.samples[chosen],
        targets,
        corruptions,
        subject.task,
        advance,
    )
    return Sampled(len(chosen), rows)


def measure_recognition(subject: MeasuredModel, unfamiliar: Mapping[str, Sample]) -> Recognition | None:
    """Measure familiarity on unfamiliar samples, and on drawn ones; None if the files have no familiarity."""
    if subject.files[FP32.name].metadata.familiarity is None:
        return None
    modality = modality_of(subject.input)
    drawn = modality.unfamiliar_samples(subject.input, DRAWN_SAMPLES)
    groups = dict(unfamiliar) if drawn is None else {**unfamiliar, modality.drawn_name: drawn}
    advance = subject.start_step("unfamiliar samples", 1)
    found = recognition(subject.files, FP32.name, subject.samples, groups, subject.task)
    advance(1)
    return found


def measure_verification(subject: MeasuredModel) -> Verification | None:
    """Measure verification by the files' embeddings; None without embeddings, or without labels of both kinds of pairs.

    Raises:
        ModelFileError: a file has no embedding, unlike the fp32 file.
    """
    targets = subject.class_targets
    if subject.files[FP32.name].metadata.embedding is None or targets is None:
        return None
    chosen = choose_verified(targets)
    advance = subject.start_step("verification", len(subject.files))
    embeddings = {}
    for done, (role, file) in enumerate(subject.files.items(), 1):
        embeddings[role] = embed(file, subject.samples[chosen])
        advance(done)
    return verification(embeddings, FP32.name, targets[chosen])


def _references(subject: MeasuredModel, chosen: Integers, maps: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the modality's baseline maps at the resolution of the last maps."""
    size = list(maps.values())[-1].shape[1:]
    baselines = modality_of(subject.input).baseline_maps(subject.input, subject.samples[chosen])
    return {name: area_mean(each, *size) for name, each in baselines.items()}


def _maps_of_the_right_class(subject: MeasuredModel, role: str, found: Predictions, chosen: Integers) -> Floats:
    assert found.maps is not None
    maps = found.maps[chosen].copy()
    targets = subject.class_targets
    if targets is None:
        return maps
    # Most maps already explain the target class.
    wrong = np.flatnonzero(found.explained_class[chosen] != targets[chosen])
    if len(wrong):
        again = predict(subject.by_name[role], subject.samples[chosen[wrong]], targets[chosen[wrong]]).maps
        assert again is not None
        maps[wrong] = again
    return maps

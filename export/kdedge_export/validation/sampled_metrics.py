"""Measurements on some of the samples, since each needs many forward passes per sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from kdedge_export.candidates import STUDENT, TEACHER, origin, shipped
from kdedge_export.metrics.calibration import Calibration, calibration
from kdedge_export.metrics.faithfulness import MAX_FAITHFULNESS_SAMPLES, Faithfulness, faithfulness
from kdedge_export.metrics.file_predictions import embed
from kdedge_export.metrics.localization import Localization, localize_all
from kdedge_export.metrics.resampling import area_mean
from kdedge_export.metrics.robustness import Robustness, robustness
from kdedge_export.metrics.sanity import MAX_SANITY_SAMPLES, Sanity, sanity
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
    "ValidationContext",
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
class ValidationContext:
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
    context: ValidationContext, held_out: Flags | None, temperatures: Mapping[str, float]
) -> dict[str, Calibration]:
    """Compute every model's calibration on samples not used to fit the temperature.

    Empty without labels, or for a task without probabilities.
    """
    targets = context.class_targets
    if targets is None or not context.task.has_probabilities:
        return {}
    chosen = np.flatnonzero(np.ones(len(context.samples), dtype=np.bool_) if held_out is None else held_out)
    if not len(chosen):
        return {}
    return {
        role: calibration(found.logits[chosen], targets[chosen], temperatures[role])
        for role, found in context.predictions.items()
    }


def measure_sanity(context: ValidationContext) -> Sampled[tuple[Sanity, ...]] | None:
    """Run the sanity checks on the student's and the files' maps; None if the deployed file has none."""
    models = {
        role: model
        for role, model in context.by_name.items()
        if role != TEACHER.name and context.predictions[role].maps is not None
    }
    chosen = context.sample(MAX_SANITY_SAMPLES)
    if context.predictions[context.shipped].maps is None:
        return None
    requested = context.predictions[context.origin].explained_class[chosen]
    advance = context.start_step("sanity checks", len(models))
    return Sampled(len(chosen), sanity(models, context.samples[chosen], requested, advance))


def other_maps(context: ValidationContext, bounds: Bounds) -> OtherClasses | None:
    """Compare the files' maps of another class with the reference; None without another class or a map."""
    reference, found = context.by_name[context.origin], context.predictions[context.origin]
    count = found.logits.shape[1]
    if count < 2 or found.maps is None or context.predictions[FP32.name].maps is None:
        return None
    chosen = context.sample(OTHER_CLASS_SAMPLES)
    advance = context.start_step("maps of other classes", 1)
    top = found.logits[chosen].argmax(axis=1)
    compared = compare_other_classes(
        reference, context.files, context.samples[chosen], top, count, bounds, context.task
    )
    advance(1)
    return compared


def measure_localization(
    context: ValidationContext, masks: Sequence[Flags | None]
) -> Sampled[dict[str, Localization]] | None:
    """Measure how well all models' maps of the target class localize the object; None without known regions.

    Without labels the maps explain the prediction of the student or fp32 file.
    """
    chosen = np.array([number for number, mask in enumerate(masks) if mask is not None and mask.any()], dtype=np.int64)
    with_maps = {role: found for role, found in context.predictions.items() if found.maps is not None}
    if not len(chosen) or not with_maps:
        return None
    advance = context.start_step("localization", len(with_maps))
    maps: dict[str, Floats] = {}
    for done, (role, found) in enumerate(with_maps.items(), 1):
        maps[role] = _maps_of_the_right_class(context, role, found, chosen)
        advance(done)
    known = [mask for mask in masks if mask is not None and mask.any()]
    edges = _references(context, chosen, maps)
    shifts = {str(role): shift for role, shift in context.shifts.items()}
    return Sampled(len(chosen), localize_all(maps, known, shifts, edges))


def measure_faithfulness(context: ValidationContext) -> Sampled[dict[str, Faithfulness]] | None:
    """Measure the faithfulness of the teacher's, the fp32 file's and the deployed file's maps."""
    maps = {
        role: found.maps
        for role, found in context.predictions.items()
        if role != STUDENT.name and found.maps is not None  # the fp32 file's maps are the same
    }
    if context.predictions[context.shipped].maps is None:
        return None
    chosen = context.sample(MAX_FAITHFULNESS_SAMPLES)
    advance = context.start_step("faithfulness", (len(maps) + 2) * 2 * len(chosen))
    classes = context.predictions[context.origin].explained_class[chosen]
    some = {str(role): of_all[chosen] for role, of_all in maps.items()}
    samples, modality = context.samples[chosen], modality_of(context.input)
    references = _references(context, chosen, some)
    rows = faithfulness(context.shipped_file, some, samples, classes, modality.smoothed, references, advance)
    return Sampled(len(chosen), rows)


def measure_robustness(context: ValidationContext) -> Sampled[tuple[Robustness, ...]]:
    """Measure predictions and maps on corrupted samples."""
    chosen = context.sample(CORRUPTED_SAMPLES)
    targets = None if context.targets is None else context.targets[chosen]
    corruptions = modality_of(context.input).corruptions
    advance = context.start_step("robustness", len(corruptions))
    rows = robustness(
        context.by_name[context.origin],
        context.files,
        context.samples[chosen],
        targets,
        corruptions,
        context.task,
        advance,
    )
    return Sampled(len(chosen), rows)


def measure_recognition(context: ValidationContext, unfamiliar: Mapping[str, Sample]) -> Recognition | None:
    """Measure familiarity on unfamiliar samples, and on drawn ones; None if the files have no familiarity."""
    if context.files[FP32.name].metadata.familiarity is None:
        return None
    modality = modality_of(context.input)
    drawn = modality.unfamiliar_samples(context.input, DRAWN_SAMPLES)
    groups = dict(unfamiliar) if drawn is None else {**unfamiliar, modality.drawn_name: drawn}
    advance = context.start_step("unfamiliar samples", 1)
    found = recognition(context.files, FP32.name, context.samples, groups, context.task)
    advance(1)
    return found


def measure_verification(context: ValidationContext) -> Verification | None:
    """Measure verification by the files' embeddings; None without embeddings, or without labels of both kinds of pairs.

    Raises:
        ModelFileError: a file has no embedding, unlike the fp32 file.
    """
    targets = context.class_targets
    if context.files[FP32.name].metadata.embedding is None or targets is None:
        return None
    chosen = choose_verified(targets)
    advance = context.start_step("verification", len(context.files))
    embeddings = {}
    for done, (role, file) in enumerate(context.files.items(), 1):
        embeddings[role] = embed(file, context.samples[chosen])
        advance(done)
    return verification(embeddings, FP32.name, targets[chosen])


def _references(context: ValidationContext, chosen: Integers, maps: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the modality's baseline maps at the resolution of the last maps."""
    size = list(maps.values())[-1].shape[1:]
    baselines = modality_of(context.input).baseline_maps(context.input, context.samples[chosen])
    return {name: area_mean(each, *size) for name, each in baselines.items()}


def _maps_of_the_right_class(context: ValidationContext, role: str, found: Predictions, chosen: Integers) -> Floats:
    assert found.maps is not None
    maps = found.maps[chosen].copy()
    targets = context.class_targets
    if targets is None:
        return maps
    # Most maps already explain the target class.
    wrong = np.flatnonzero(found.explained_class[chosen] != targets[chosen])
    if len(wrong):
        again = predict(context.by_name[role], context.samples[chosen[wrong]], targets[chosen[wrong]]).maps
        assert again is not None
        maps[wrong] = again
    return maps

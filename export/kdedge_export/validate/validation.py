"""Hold the exported files against the PyTorch student they came from, and the student against its teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from kdedge_export.validate import metrics
from kdedge_export.validate.arithmetic_note import saturation_note
from kdedge_export.validate.check import Check
from kdedge_export.validate.comparison import Comparison, compare, pair_pearson
from kdedge_export.validate.evidence import Evidence
from kdedge_export.validate.gates import (
    Gates,
    check_budgets,
    check_comparison,
    check_faithfulness,
    check_input,
    check_labels,
    check_sanity,
    check_unchanged,
)
from kdedge_export.validate.intervals import SHARE, mean_interval
from kdedge_export.validate.kinks import at_the_same_kinks, has_kinks
from kdedge_export.validate.page import write_page
from kdedge_export.validate.per_class import class_rows
from kdedge_export.validate.predictions import Predictions, TorchModel, predict, weight_bytes
from kdedge_export.validate.report import ModelFacts, ValidationReport, file_facts, write_json
from kdedge_export.validate.roles import REFERENCE, TITLES, Role, shipped
from kdedge_export.validate.rounding import Hardest, hardest, spread_of_rounding, tied_by_rounding
from kdedge_export.validate.sanity import Sanity
from kdedge_export.validate.studies import (
    Progress,
    Sampled,
    Subject,
    calibrated,
    disturbed_answers,
    faith,
    places,
    sane,
)
from kdedge_export.validate.subjects import Deployment, Models, Origin, ValidationSet
from kdedge_runtime import Model
from kdedge_runtime.arrays import Integers, Pixels
from kdedge_runtime.errors import DataError
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.model import softmax

__all__ = ["validate", "write_report"]

DOUBTED_IMAGES = 16
"""What float32 costs PyTorch itself is asked for on so many at a time, until an error is larger."""


def validate(
    models: Models,
    data: ValidationSet,
    deployment: Deployment | None = None,
    *,
    gates: Gates | None = None,
    quick: bool = False,
    notes: Sequence[str] = (),
    progress: Progress = lambda *_: None,
) -> tuple[ValidationReport, Evidence]:
    """Measure whether the answer and the reason came through export and quantization.

    Every model sees the same pixels and explains the same class of each image, the PyTorch student's top class;
    their raw maps are compared.

    Args:
        models: who takes part.
        data: the images.
        deployment: the device, and what the files take; None asks for no budget.
        gates: the bounds; None for the defaults.
        quick: leave out what asks about every image many times: faithfulness and robustness.
        notes: what was left out before, for the report.
        progress: told after every batch.

    Returns:
        The report, and the evidence that its page shows.

    Raises:
        DataError: a model has other classes than the data.
    """
    gates, deployment = gates or Gates(), deployment or Deployment()
    images, targets, labels, student, fp32 = data.images, data.targets, data.labels, models.student, models.fp32
    asked = models.by_role
    predictions = _ask_all(asked, images, labels, progress)
    pairs = {
        role: (predictions[REFERENCE[role]], answers)
        for role, answers in predictions.items()
        if role in REFERENCE and REFERENCE[role] in predictions
    }
    alike = _at_the_same_kinks(student, fp32, images, predictions, gates.fp32_map_error)
    map_error = _hardest_map(gates, student, images, alike, predictions["fp32"])
    ties = tied_by_rounding(student, images, predictions["student"], predictions["fp32"], gates.fp32_map_rounding)
    comparisons = {
        role: compare(alike if role == "fp32" else reference, candidate, targets)
        for role, (reference, candidate) in pairs.items()
    }
    pearson = {role: scores for role, pair in pairs.items() if (scores := pair_pearson(*pair)) is not None}
    temperatures = {role: _temperature(role, model, fp32) for role, model in asked.items()}
    subject = Subject(asked, predictions, images, targets, shipped(asked), progress)
    sound, faithful = sane(subject), None if quick else faith(subject)
    ships = subject.shipped
    checks = [
        *_checks(subject.files, comparisons, labels, models.trained_input, gates, map_error, ties),
        *([] if sound is None else _sanity_checks(sound, predictions, fp32.metadata.outputs.method, gates)),
        *([] if faithful is None else check_faithfulness(ships, faithful.rows[ships], faithful.images, gates)),
        *(
            check
            for role, footprint in deployment.footprints.items()
            for check in check_budgets(role, footprint, deployment.budgets)
        ),
    ]
    report = ValidationReport(
        data=data.source,
        images=len(images),
        labelled=targets is not None,
        models={
            role: _facts(model, models.origins.get(role, Origin()), predictions[role], targets)
            for role, model in asked.items()
        },
        comparisons=comparisons,
        checks=tuple(checks),
        classes=class_rows(predictions, pairs, pearson, targets, labels, ships),
        calibration=calibrated(subject, data.held_out, temperatures),
        sanity=sound,
        localisation=None if data.masks is None else places(subject, data.masks),
        faithfulness=faithful,
        robustness=None if quick else disturbed_answers(subject),
        footprints=deployment.footprints,
        device=deployment.device,
        quick=quick,
        notes=(*notes, *_told(ties, models.int8)),
    )
    evidence = Evidence(
        images=images,
        targets=targets,
        labels=tuple(labels),
        names=tuple(data.names or (f"image {number}" for number in range(len(images)))),
        predictions=predictions,
        probabilities={role: softmax(answers.logits / temperatures[role]) for role, answers in predictions.items()},
        pearson=pearson,
    )
    return report, evidence


def _at_the_same_kinks(
    student: TorchModel, fp32: Model, images: Pixels, predictions: Mapping[Role, Predictions], tolerance: float
) -> Predictions:
    """The student's answers to hold the fp32 file against: differing maps with units at kinks on the file's sides."""
    ours, theirs = predictions["student"], predictions["fp32"]
    if not has_kinks(student) or ours.maps is None or theirs.maps is None or ours.maps.shape != theirs.maps.shape:
        return ours
    differing = np.flatnonzero(metrics.map_error(ours.maps, theirs.maps) > tolerance)
    if not len(differing):
        return ours
    maps = ours.maps.copy()
    maps[differing] = at_the_same_kinks(student, fp32, images[differing], ours.explained_class[differing])
    return replace(ours, maps=maps)


def _hardest_map(
    gates: Gates, student: TorchModel, images: Pixels, ours: Predictions, theirs: Predictions
) -> Hardest | None:
    """Judge each map of the fp32 file by its own image's rounding, worst first; None where they cannot be compared."""
    if ours.maps is None or theirs.maps is None or ours.maps.shape != theirs.maps.shape:
        return None
    wrong = ours.explained_class != theirs.explained_class
    errors = np.where(wrong, np.inf, metrics.map_error(ours.maps, theirs.maps))
    rounding = np.zeros_like(errors)
    doubted = np.flatnonzero(errors > gates.fp32_map_error)
    doubted = doubted[np.argsort(-errors[doubted], kind="stable")]
    for start in range(0, len(doubted), DOUBTED_IMAGES):
        some = doubted[start : start + DOUBTED_IMAGES]
        _, rounding[some] = spread_of_rounding(student, images[some], ours.explained_class[some])
        if not (errors[some] <= rounding[some]).all():  # the others change nothing
            return hardest(errors[some], rounding[some], gates.fp32_map_error, gates.fp32_map_rounding)
    return hardest(errors, rounding, gates.fp32_map_error, gates.fp32_map_rounding)


def write_report(report: ValidationReport, evidence: Evidence, folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.json` into a folder and return their paths; each appears whole or not at all."""
    page, document = folder / "report.html", folder / "report.json"
    write_page(report, evidence, page)
    write_json(report, document)
    return page, document


def _told(ties: int, int8: Model | None) -> list[str]:
    """Notes on answers that differ and count as the same, and on kernels that saturate."""
    notes = []
    if ties:
        images = f"{ties:,} image{'' if ties == 1 else 's'}"
        notes.append(f"on {images} the fp32 file answers otherwise by rounding alone: two classes are tied there")
    if int8 is not None and (saturated := saturation_note(int8.metadata.quantization)):
        notes.append(saturated)
    return notes


def _ask_all(
    models: Mapping[Role, TorchModel | Model], images: Pixels, labels: Sequence[str], progress: Progress
) -> dict[Role, Predictions]:
    """Every model's predictions in the order of `models`, all about the student's top classes."""

    def ask(role: Role, classes: Integers | None) -> Predictions:
        told = partial(progress, TITLES[role], len(images))
        told(0)
        answers = predict(models[role], images, classes, progress=told)
        if answers.logits.shape[1] != len(labels):
            raise DataError(
                f"{TITLES[role]} has {answers.logits.shape[1]} classes and the data has {len(labels)} labels. "
                "Validate on data with the classes that the model was trained on: `kdedge validate RUN --data DATA`."
            )
        return answers

    student = ask("student", None)
    return {role: student if role == "student" else ask(role, student.explained_class) for role in models}


def _checks(
    files: Mapping[Role, Model],
    comparisons: Mapping[Role, Comparison],
    labels: Sequence[str],
    spec: ImageInput | None,
    gates: Gates,
    map_error: Hardest | None,
    ties: int,
) -> list[Check]:
    checks: list[Check] = []
    for role, model in files.items():
        checks += check_comparison(role, comparisons[role], gates, map_error, ties)
        checks.append(check_labels(role, labels, model.metadata.labels))
        if spec is not None:
            checks.append(check_input(role, spec, model.metadata.input))
    return checks


def _sanity_checks(
    sound: Sampled[tuple[Sanity, ...]], predictions: Mapping[Role, Predictions], method: str, gates: Gates
) -> list[Check]:
    """On every change that was made, and on those that could not be."""
    made = {(row.role, row.test) for row in sound.rows}
    tests: tuple[Literal["class", "picture"], ...] = ("class", "picture")
    return [check_sanity(row, sound.images, method, gates) for row in sound.rows] + [
        check_unchanged(role, test, gates)
        for role, answers in predictions.items()
        for test in tests
        if role != "teacher" and answers.maps is not None and (role, test) not in made
    ]


def _facts(model: TorchModel | Model, origin: Origin, answers: Predictions, targets: Integers | None) -> ModelFacts:
    right = None if targets is None else metrics.is_right(answers.logits, targets)
    top1 = None if right is None else float(right.mean())
    interval = None if right is None else mean_interval(right, SHARE)
    if isinstance(model, Model):
        found = {"quantization": model.metadata.quantization, "arithmetic": model.arithmetic}
        return file_facts(model.path, top1=top1, top1_interval=interval, **found)
    return ModelFacts(origin.name, weight_bytes(model), origin.sha256, top1, interval)


def _temperature(role: Role, model: TorchModel | Model, fp32: Model) -> float:
    if isinstance(model, Model):
        return model.metadata.temperature
    # A module carries no temperature; the student's was written into its file.
    return fp32.metadata.temperature if role == "student" else 1.0

"""Compare model files with the PyTorch student, if there is one, and the student with its teacher."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from kdedge_export.candidates import STUDENT, TEACHER, origin, reference
from kdedge_export.metrics.comparison import Comparison, compare, pair_pearson
from kdedge_export.metrics.false_alarms import FalseAlarms, count_false_alarms
from kdedge_export.metrics.per_class import class_rows
from kdedge_export.metrics.sanity import Sanity
from kdedge_export.metrics.torch_predictions import Predictions, TorchModel, predict
from kdedge_export.modalities import modality_of
from kdedge_export.tasks import EXPORT_TASKS, TaskMetrics
from kdedge_export.validation.baseline_checks import check_constant, check_evidence
from kdedge_export.validation.check import Check
from kdedge_export.validation.completeness import check_completeness
from kdedge_export.validation.exactness import AlignedSample, Bounds, Exactness, measure_exactness
from kdedge_export.validation.false_alarm_checks import check_false_alarms
from kdedge_export.validation.familiarity_checks import check_recognition
from kdedge_export.validation.fidelity_checks import (
    check_comparison,
    check_default_class,
    check_other_classes,
    inapplicable_fp32_checks,
)
from kdedge_export.validation.float_tolerance import is_tied
from kdedge_export.validation.gates import (
    Gates,
    check_budgets,
    check_faithfulness,
    check_input,
    check_labels,
    check_sanity,
    check_unchanged,
)
from kdedge_export.validation.inputs import Deployment, Models, ValidationSet
from kdedge_export.validation.model_facts import Origin, model_facts
from kdedge_export.validation.report import ValidationReport, write_json
from kdedge_export.validation.sampled_metrics import (
    Sampled,
    ValidationContext,
    measure_calibration,
    measure_faithfulness,
    measure_localization,
    measure_recognition,
    measure_robustness,
    measure_sanity,
    measure_verification,
    other_maps,
)
from kdedge_export.validation.samples import SampleGallery
from kdedge_export.validation.saturation_note import saturation_note
from kdedge_export.validation.verification_checks import check_verification
from kdedge_runtime import Model
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.diagnostics.default_class import run_without_class
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.precision import FP32
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Integers, Pixels
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["validate", "write_report"]

NAMED_SAMPLES = 5
"""Maximum number of samples listed in a note; `report.json` lists all."""
DEFAULT_CLASS_SAMPLES = 32
"""Maximum number of samples for the default-class check."""


def validate(
    models: Models,
    data: ValidationSet,
    deployment: Deployment | None = None,
    *,
    gates: Gates | None = None,
    quick: bool = False,
    notes: Sequence[str] = (),
    progress: ProgressCallback = no_progress,
) -> tuple[ValidationReport, SampleGallery]:
    """Measure whether predictions and saliency maps survive export and quantization.

    Every model receives the same samples and explains the same class of each sample, the PyTorch student's top-1 class;
    the raw maps are compared. Without a student, as for a model file from another framework, it is the fp32 file's
    top-1 class. The other files are then compared with the fp32 file, and comparisons with PyTorch do not apply.

    Args:
        models: models to validate.
        data: samples to validate on.
        deployment: target device, and the files' size and cost; None checks no budgets.
        gates: the bounds; None for the defaults.
        quick: skip measurements with many forward passes per sample: faithfulness and robustness.
        notes: notes on skipped measurements, for the report.
        progress: called after every batch.

    Returns:
        The report, and the per-sample data shown in its page.

    Raises:
        DataError: the classes of a model differ from those of the data.
    """
    gates, deployment = gates or Gates(), deployment or Deployment()
    samples, targets, labels, fp32 = data.samples, data.targets, data.labels, models.fp32
    requested = models.by_candidate
    predictions = _predict_all(requested, samples, labels, progress)
    pairs = {
        candidate.name: (predictions[against.name], predictions[candidate.name])
        for candidate in requested
        if (against := reference(candidate, requested)) is not None
    }
    task, has_classes = EXPORT_TASKS[fp32.metadata.task], TASKS[fp32.metadata.task].has_classes
    bounds = Bounds(gates.fp32_logits_error, gates.fp32_divergence, gates.fp32_map_error, gates.fp32_rounding)
    exact, ties = None, 0
    if models.student is not None:
        ours, theirs = pairs[FP32.name]
        exact = measure_exactness(models.student, fp32, samples, ours, theirs, bounds, task)
        ties = 0 if not has_classes else is_tied(models.student, samples, ours, theirs, task, gates.fp32_rounding)
    aligned = () if exact is None else exact.aligned
    comparisons = {role: compare(against, candidate, targets, task) for role, (against, candidate) in pairs.items()}
    pearson = {role: scores for role, pair in pairs.items() if (scores := pair_pearson(*pair)) is not None}
    temperatures = {each.name: _temperature(each, model, fp32) for each, model in requested.items()}
    context = ValidationContext(requested, predictions, samples, targets, progress)
    recognized, verified = measure_recognition(context, data.unfamiliar), measure_verification(context)
    alarms = _false_alarms(models, data, progress)
    sound, faithful = measure_sanity(context), None if quick else measure_faithfulness(context)
    localized = None if data.masks is None else measure_localization(context, data.masks)
    ships = context.shipped
    checks = [
        *_checks(context, comparisons, labels, models.trained_input, gates, exact, ties),
        *_class_checks(context, bounds, gates),
        *_constant_checks(context, task, gates),
        *check_evidence(
            ships,
            None if localized is None else localized.rows.get(ships),
            0 if localized is None else localized.samples,
            gates,
        ),
        *_completeness_checks(context, gates),
        *check_recognition(recognized, gates),
        *check_false_alarms(alarms, gates),
        *check_verification(verified, [] if fp32.metadata.embedding is None else context.compared_files, gates),
        *([] if sound is None else _sanity_checks(sound, context, fp32.metadata.outputs.method, gates)),
        *([] if faithful is None else [check_faithfulness(ships, faithful.rows[ships], faithful.samples, gates)]),
        *(
            check
            for role, footprint in deployment.footprints.items()
            for check in check_budgets(role, footprint, deployment.budgets)
        ),
    ]
    report = ValidationReport(
        data=data.source,
        samples=len(samples),
        has_labels=targets is not None,
        candidates=tuple(requested),
        models={
            role: model_facts(model, models.origins.get(role, Origin()), predictions[role], targets, task)
            for role, model in context.by_name.items()
        },
        comparisons=comparisons,
        checks=tuple(checks),
        classes=()
        if not has_classes
        else class_rows(predictions, pairs, pearson, targets, labels, origin=context.origin, shipped=ships),
        calibration=measure_calibration(context, data.held_out, temperatures),
        sanity=sound,
        localization=localized,
        faithfulness=faithful,
        robustness=None if quick else measure_robustness(context),
        familiarity=recognized,
        verification=verified,
        false_alarms=alarms,
        footprints=deployment.footprints,
        device=deployment.device,
        wording=task.wording,
        quick=quick,
        aligned=aligned,
        notes=(*notes, *_threshold_notes(fp32), *_rounding_notes(ties, aligned, data, context.files)),
    )
    evidence = SampleGallery(
        modality=modality_of(fp32.metadata.input),
        task=fp32.metadata.task,
        samples=samples,
        targets=targets,
        labels=tuple(labels),
        candidates=tuple(requested),
        names=tuple(data.names or (f"sample {number}" for number in range(len(samples)))),
        predictions=predictions,
        scores={
            role: TASKS[fp32.metadata.task].scores(found.logits, temperatures[role])
            for role, found in predictions.items()
        },
        pearson=pearson,
        shifts=context.shifts,
    )
    return report, evidence


def _false_alarms(models: Models, data: ValidationSet, progress: ProgressCallback) -> tuple[FalseAlarms, ...]:
    """Count the false alarms of every file; empty without background recordings."""
    if data.background is None:
        return ()
    files = {FP32.name: models.fp32} | dict(models.converted)
    return tuple(count_false_alarms(role, model, data.background, progress) for role, model in files.items())


def write_report(report: ValidationReport, evidence: SampleGallery, folder: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.json` atomically into a folder and return their paths."""
    from kdedge_export.validation.page import write_page  # matplotlib and Jinja2 load when they are used

    page, document = folder / "report.html", folder / "report.json"
    write_page(report, evidence, page)
    write_json(report, document)
    return page, document


def _threshold_notes(fp32: Model) -> list[str]:
    """Return a note if unknown samples cannot be recognized for want of a threshold."""
    found = fp32.metadata.familiarity
    if found is None or found.threshold is not None:
        return []
    return [f"no sample is called unknown, since there is no threshold of familiarity: {found.why_not}"]


def _rounding_notes(
    ties: int, aligned: Sequence[AlignedSample], data: ValidationSet, files: Mapping[str, Model]
) -> list[str]:
    """Return notes on differences caused only by rounding, and on kernels that saturate."""
    notes = []
    if ties:
        notes.append(
            f"on {counted(ties, 'sample')} the fp32 file's prediction differs by rounding alone: two classes are tied"
        )
    if aligned:
        worst = max(aligned, key=lambda one: one.raw_error)
        names = [data.names[one.sample] if data.names else f"sample {one.sample}" for one in aligned[:NAMED_SAMPLES]]
        more = f" and {len(aligned) - len(names):,} more" if len(aligned) > len(names) else ""
        moved = max(one.moved for one in aligned)
        notes.append(
            f"the fp32 map error of {', '.join(names)}{more} was computed with units moved to the file's side of "
            f"their kink: at most {moved:,} units, each within its own rounding error. Unmodified, these maps differ "
            f"by up to {worst.raw_error:.1e} of their range (Pearson {worst.raw_pearson:.6f}); with moved units by "
            f"{worst.error:.1e} ({worst.pearson:.6f})"
        )
    saturated = (saturation_note(file.metadata.quantization) for file in files.values())
    return notes + [note for note in saturated if note is not None]


def _predict_all(
    models: Mapping[Candidate, TorchModel | Model], samples: Pixels, labels: Sequence[str], progress: ProgressCallback
) -> dict[str, Predictions]:
    """Predict with every model in the order of `models`, explaining the source model's top-1 classes."""

    def predict_with(candidate: Candidate, classes: Integers | None) -> Predictions:
        title, model = candidate.title, models[candidate]
        progress(title, 0, len(samples))
        found = predict(model, samples, classes, progress=lambda done: progress(title, done, len(samples)))
        if found.logits.shape[1] != len(labels):
            raise DataError(
                f"{title} has {found.logits.shape[1]} classes but the data has {len(labels)} labels. "
                "Validate on data with the classes that the model was trained on: `kdedge validate RUN --data DATA`."
            )
        return found

    first = origin(models)
    found = predict_with(first, None)
    return {each.name: found if each == first else predict_with(each, found.explained_class) for each in models}


def _checks(
    context: ValidationContext,
    comparisons: Mapping[str, Comparison],
    labels: Sequence[str],
    spec: InputSpec | None,
    gates: Gates,
    exact: Exactness | None,
    ties: int,
) -> list[Check]:
    checks: list[Check] = []
    for role, model in context.files.items():
        is_origin = role == context.origin  # a comparison with itself
        checks += (
            inapplicable_fp32_checks(gates, context.task.wording)
            if is_origin
            else check_comparison(role, comparisons[role], gates, exact, ties)
        )
        checks.append(check_labels(role, None if is_origin else labels, model.metadata.labels))
        if spec is not None:
            checks.append(check_input(role, None if is_origin else spec, model.metadata.input))
    return checks


def _constant_checks(context: ValidationContext, task: TaskMetrics, gates: Gates) -> list[Check]:
    """Return the comparison of the deployed file with a constant; empty without labels."""
    if context.targets is None:
        return []
    logits, targets = context.predictions[context.shipped].logits, context.targets
    constant = task.constant_correct(targets, logits.shape[1])
    if constant is None:
        return []
    return [check_constant(context.shipped, task.correct(logits, targets), constant, gates, task)]


def _class_checks(context: ValidationContext, bounds: Bounds, gates: Gates) -> list[Check]:
    """Return checks of the class explained by default, and of the maps of other classes."""
    checks = []
    chosen = context.sample(DEFAULT_CLASS_SAMPLES)
    with_map = {role: file for role, file in context.files.items() if context.predictions[role].maps is not None}
    advance = context.start_step("default class", len(with_map))
    for done, (role, file) in enumerate(with_map.items(), 1):
        checks.append(check_default_class(role, run_without_class(file, context.samples[chosen]), context.task.wording))
        advance(done)
    if not context.has_classes:
        return checks
    found = other_maps(context, bounds)
    count = len(context.predictions[FP32.name].logits[0])
    why_not = "there is no other class" if count < 2 else "there are no two maps to compare"
    compared = [role for role in with_map if role != context.origin]
    return checks + [check_other_classes(role, found, gates, why_not) for role in compared]


def _completeness_checks(context: ValidationContext, gates: Gates) -> list[Check]:
    classes = context.predictions[context.origin].explained_class
    return [
        check
        for role, file in context.files.items()
        for check in check_completeness(role, file, context.samples, classes, gates)
    ]


def _sanity_checks(
    sound: Sampled[tuple[Sanity, ...]], context: ValidationContext, method: str, gates: Gates
) -> list[Check]:
    """Return checks of every change that was made, and of those that were impossible."""
    made = {(row.model, row.test) for row in sound.rows}
    tests: tuple[Literal["class", "sample"], ...] = ("class", "sample") if context.has_classes else ("sample",)
    return [check_sanity(row, sound.samples, method, gates) for row in sound.rows] + [
        check_unchanged(role, test, gates)
        for role, found in context.predictions.items()
        for test in tests
        if role != TEACHER.name and found.maps is not None and (role, test) not in made
    ]


def _temperature(candidate: Candidate, model: TorchModel | Model, fp32: Model) -> float:
    if isinstance(model, Model):
        return model.metadata.temperature
    # A module stores no temperature; the student's is stored in its file.
    return fp32.metadata.temperature if candidate == STUDENT else 1.0

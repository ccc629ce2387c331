"""Validate a run or a model file and write the report."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from kdedge.data import DatasetIndex, DecodedSamples, SkippedSamples
from kdedge.data.annotations import boxes_beside, object_masks
from kdedge.data.readers.reader_choice import require_kind
from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.background_recordings import background_source
from kdedge.pipelines.exported_files import ExportedFiles, open_files
from kdedge.pipelines.footprints import measure_footprints
from kdedge.pipelines.origins import as_model_classes, is_numbered
from kdedge.pipelines.run_teacher import load_run_teacher
from kdedge.pipelines.temperature_fit import fitting_half
from kdedge.pipelines.unfamiliar_samples import unfamiliar_samples
from kdedge.pipelines.validation_samples import (
    choose_validation_samples,
    describe_split,
    is_training_data,
    read_validation_split,
)
from kdedge_export.familiarity.file_familiarity import without_familiarity
from kdedge_export.inspection.structure import structure_of
from kdedge_export.torch_export import wrap_for_export
from kdedge_export.validation import (
    Data,
    Deployment,
    Gates,
    Models,
    Origin,
    SampleGallery,
    ValidationReport,
    ValidationSet,
    validate,
    write_report,
)
from kdedge_export.validation.check import applicable, inconclusive
from kdedge_runtime.devices import Budgets, DeviceProfile, load_profile
from kdedge_runtime.devices.detection import machine_name
from kdedge_runtime.errors import DataError, UsageError, ValidationFailed
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.precision import FP32, fastest
from kdedge_runtime.util.arrays import Integers, Targets, evenly_spaced
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.files import Location
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["Validation", "validate_model"]

Flags = NDArray[np.bool_]
LOCATED_SAMPLES = 1000
"""Maximum number of samples whose object annotations are read."""


@dataclass(frozen=True, repr=False)
class Validation:
    """Validation results and the paths of the report."""

    report: ValidationReport
    evidence: SampleGallery
    page: Path
    document: Path
    model: Path
    """Model file to deploy, that of the least exact precision."""
    fp32: Path
    example_source: str
    """Value of `--source` in suggested commands, see `InputSpec`."""

    def __repr__(self) -> str:
        """Return the outcomes of the checks and the path of the page."""
        outcomes = Counter(check.outcome for check in self.report.checks)
        counts = ", ".join(f"{outcome}: {count}" for outcome, count in outcomes.items())
        return f"Validation({counts}, page={str(self.page)!r})"

    @property
    def fastest(self) -> Path:
        """Path of the file to run on machines like this one; a less exact one only if it is at least 5% faster."""
        paths = {each.name: each.path for each in self.report.candidates if each.path is not None}
        latencies = {name: footprint.latency_ms for name, footprint in self.report.footprints.items() if name in paths}
        return paths[fastest(latencies)] if latencies else self.model

    def require_passed(self) -> None:
        """Raise unless every gate is passed.

        Raises:
            ValidationFailed: with the number of failed gates and the path of the report.
        """
        if self.report.passed:
            return
        checks = applicable(self.report.checks)
        failed = sum(check.outcome == "failed" for check in checks)
        few, undecided = inconclusive(checks)
        faults = [f"{failed} of {len(checks)} checks failed"] if failed or not (few or undecided) else []
        if few:
            needed = max(check.samples_needed or 0 for check in checks)
            samples = counted(self.report.samples, "sample")
            enough = f"(about {needed:,} needed to confirm)"
            faults.append(f"{few} of {len(checks)} checks {_is(few)} inconclusive with {samples} {enough}")
        if undecided:
            faults.append(
                f"{undecided} of {len(checks)} checks {_is(undecided)} inconclusive regardless of the number of samples"
            )
        raise ValidationFailed(f"{' and '.join(faults)}; see {self.page}")


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def validate_model(
    source: Location,
    *,
    data: str | None = None,
    boxes: Path | None = None,
    weights: Path | None = None,
    model: str | None = None,
    profile: DeviceProfile | None = None,
    quick: bool = False,
    unfamiliar: str | None = None,
    background: str | None = None,
    max_false_alarms: float | None = None,
    max_evidence_outside: float | None = None,
    output: Path | None = None,
    progress: ProgressCallback = no_progress,
) -> Validation:
    """Compare the exported files of a run (or one model file) with PyTorch, and write the report.

    A file of another framework has no PyTorch model. It is validated alone, and its other precisions against it.

    Args:
        source: run folder with exported files, a file in one, or an `.onnx` file of a named model or another framework.
        data: samples; None takes the dataset that the run was trained with.
        boxes: object annotations (see `kdedge.data.annotations`); None takes `boxes.csv` of the dataset, if it exists.
        weights: weights that the file of a named model was exported from. None searches by name, next to the file and
            in the current folder.
        model: function that builds the model, `FILE.py:FUNCTION`, for a file exported from a Python file.
        profile: device whose budgets are checked; None takes the one that the quantized files were made for, if any.
        quick: True to skip checks with many forward passes per sample.
        unfamiliar: samples that belong to none of the classes, in any folders; None takes none.
        background: recordings that contain no class, to count false alarms; None counts none.
        max_false_alarms: largest number of false alarms per hour; None checks none.
        max_evidence_outside: largest fraction of the positive evidence outside the annotated regions, in [0, 1]; None
        checks nothing.
        output: folder of the report; None takes `report/` in the run, or next to the model file.
        progress: called while samples are read and models are run.

    Raises:
        UsageError: there is nothing to validate, or the weights are missing or different.
        DataError: the samples do not fit the model.
    """
    artifacts = Artifacts.open(source)
    files = open_files(artifacts, weights, model)
    root = data or (None if files.run is None else files.run.dataset())
    if root is None:
        raise UsageError(
            f"{files.fp32.path} does not belong to a run, so its samples are unknown. Give them: --data DIR."
        )
    require_kind(root, files.input.kind, str(files.fp32.path))
    notes: list[str] = []
    everything, dataset = choose_validation_samples(files, root, notes)
    progress("measuring latency and memory", 0, 1)
    deployment = _deployment(files, profile or _made_for(files, notes), notes)
    progress("measuring latency and memory", 1, 1)
    validation_set = _validation_set(files, dataset, boxes, notes, progress)
    if max_evidence_outside is not None and validation_set.masks is None:
        raise UsageError(
            f"--max-evidence-outside {max_evidence_outside:g} needs annotated regions, but {root} has none. Add "
            "--boxes FILE, or remove --max-evidence-outside."
        )
    groups = unfamiliar_samples(everything, files.left_out, unfamiliar, files.input, progress)
    recordings = None if background is None else background_source(files.input, background)
    validation_set = replace(validation_set, unfamiliar=groups, background=recordings)
    report, evidence = validate(
        _models(files, validation_set, notes),
        validation_set,
        deployment,
        gates=Gates(max_evidence_outside=max_evidence_outside, false_alarms_per_hour=max_false_alarms),
        quick=quick,
        notes=notes,
        progress=progress,
    )
    beside = files.fp32.path.with_suffix(".report") if artifacts.run is None else artifacts.run / "report"
    page, document = write_report(report, evidence, output or beside)
    deployed = files.converted.get(report.shipped.name, files.fp32)
    source = files.fp32.metadata.input.example_source
    return Validation(report, evidence, page, document, deployed.path, files.fp32.path, source)


def _models(files: ExportedFiles, validation_set: ValidationSet, notes: list[str]) -> Models:
    student, outputs = files.student, files.fp32.metadata.outputs
    if student is None:
        return Models(student=None, fp32=files.fp32, converted=files.converted, trained_input=files.input)
    taught_by = None if files.record is None else files.record.teacher
    teacher, origin = load_run_teacher(taught_by, files.fp32.metadata.task, outputs.method, validation_set, notes)
    return Models(
        student=wrap_for_export(student.model, student.input, outputs.method, outputs.target_layer),
        fp32=files.fp32,
        converted=files.converted,
        teacher=teacher,
        trained_input=student.input,
        origins={"teacher": origin, "student": Origin(student.spec.name, student.origin["weights_sha256"])},
    )


def _validation_set(
    files: ExportedFiles, dataset: DatasetIndex, boxes: Path | None, notes: list[str], progress: ProgressCallback
) -> ValidationSet:
    # Decoded for the trained input, not the file's input, so that a wrong input in the file is detected.
    decoded, part = read_validation_split(dataset, files.input, progress)
    # Rows of tables are checked when they are indexed, before they are divided.
    unused = SkippedSamples(dataset.samples, dataset.skipped)
    notes += [str(note) for note in (part, unused, decoded.problems) if note]
    labels = _labels(files)
    return ValidationSet(
        samples=decoded.samples,
        labels=labels,
        targets=_targets(files, dataset, decoded.targets, labels, notes),
        task=files.fp32.metadata.task,
        names=[sample.name for sample in decoded.stored],
        held_out=_held_out(dataset, decoded, files),
        masks=_masks(boxes, dataset, decoded, files.input, notes, progress),
        source=Data(
            f"{dataset.name}, {describe_split(dataset, files)}",
            dataset.fingerprint,
            selected_epoch=is_training_data(dataset, files.record),
        ),
    )


def _deployment(files: ExportedFiles, profile: DeviceProfile | None, notes: list[str]) -> Deployment:
    measured = {FP32.name: files.fp32} | dict(files.converted)
    threads = 1 if profile is None or profile.threads is None else profile.threads
    footprints = measure_footprints(measured, _parameters(files), threads)
    if profile is None:
        return Deployment(footprints=footprints)
    where = f"on this machine ({machine_name()})"
    notes.append(f"latency and memory were measured {where}; {profile.name} is {profile.description}")
    return Deployment(profile.name, profile.budgets, footprints)


def _parameters(files: ExportedFiles) -> int:
    if files.student is not None:
        return files.student.parameters
    return structure_of(without_familiarity(onnx.load(files.fp32.path))).parameters


def _made_for(files: ExportedFiles, notes: list[str]) -> DeviceProfile | None:
    """Return the device profile of the least exact file, or None without a profile or budgets."""
    if not files.converted:
        return None
    precision, file = list(files.converted.items())[-1]
    name = (file.metadata.quantization or {}).get("device")
    if name is None:
        return None
    try:
        profile = load_profile(name)
    except UsageError as error:
        notes.append(f"budgets are not checked: {error}")
        return None
    if profile.budgets == Budgets():
        return None
    notes.append(
        f"the budgets are those of {name}, which the {precision} file was made for; to use others: --device NAME"
    )
    return profile


def _labels(files: ExportedFiles) -> tuple[str, ...]:
    """Return the expected class names: those of training, or the file's own if they are unknown."""
    if files.student is None:
        return files.fp32.metadata.labels
    trained = files.student.labels
    return files.fp32.metadata.labels if files.run is None and is_numbered(trained) else trained


def _held_out(dataset: DatasetIndex, decoded: DecodedSamples, files: ExportedFiles) -> Flags | None:
    """Return a mask of samples not used to fit the temperature, or None if none were used."""
    if not is_training_data(dataset, files.record) or "temperature_samples" not in files.fp32.metadata.metrics:
        return None
    fitted = {sample.name for sample in fitting_half(dataset.val).samples}
    return np.array([sample.name not in fitted for sample in decoded.stored])


def _masks(
    boxes: Path | None,
    dataset: DatasetIndex,
    decoded: DecodedSamples,
    spec: InputSpec,
    notes: list[str],
    progress: ProgressCallback,
) -> list[Flags | None] | None:
    """Return object masks for evenly spaced samples, or None without annotations."""
    where = boxes or boxes_beside(dataset.source)
    if where is None or not len(decoded):
        return None
    chosen = evenly_spaced(len(decoded), LOCATED_SAMPLES).tolist()
    samples = [decoded.stored[index] for index in chosen]
    try:
        found = object_masks(where, samples, spec, progress)
    except DataError as error:
        if boxes is not None:
            raise
        notes.append(f"localization is not evaluated: {error}")  # annotations were not requested explicitly
        return None
    masks: list[Flags | None] = [None] * len(decoded)
    for index, mask in zip(chosen, found, strict=True):
        masks[index] = mask
    return masks


def _targets(
    files: ExportedFiles, dataset: DatasetIndex, targets: Targets, labels: tuple[str, ...], notes: list[str]
) -> Integers | None:
    """Map the dataset's classes to the model's labels; None for samples without classes, or with none of them."""
    if not dataset.labels:
        return None
    if files.run is None and not is_numbered(labels) and not set(dataset.labels) & set(labels):
        first = ", ".join(dataset.labels[:3]) + (", …" if len(dataset.labels) > 3 else "")
        notes.append(
            f"accuracy is not measured: none of the classes of {dataset.name} is a label of the model ({first})"
        )
        return None
    return as_model_classes(targets, dataset.labels, labels, dataset.source)

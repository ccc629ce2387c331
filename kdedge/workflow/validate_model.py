"""From a run or a model file to the report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdedge.data import Collection, Decoded, decode, scan
from kdedge.data.collection import Divider
from kdedge.data.objects import boxes_beside, object_masks
from kdedge.models.run_folder import RunRecord, is_run, read_run
from kdedge.models.trained import TrainedModel, load_trained
from kdedge.workflow.calibrate import fitting_half
from kdedge.workflow.footprints import measure_footprints
from kdedge.workflow.origins import as_model_classes, load_origin
from kdedge_export.errors import HeadNotSupported
from kdedge_export.graph import Deployed, Plain, deploy
from kdedge_export.validate import (
    Data,
    Deployment,
    Evidence,
    Models,
    Origin,
    ValidationReport,
    ValidationSet,
    validate,
    write_report,
)
from kdedge_export.validate.roles import Role
from kdedge_runtime import Model
from kdedge_runtime.arrays import Integers
from kdedge_runtime.devices import Budgets, DeviceProfile, load_profile
from kdedge_runtime.devices.detect import machine_name
from kdedge_runtime.errors import DataError, KdedgeError, UsageError, ValidationFailed

__all__ = ["Validation", "validate_model"]

Progress = Callable[[str, int, int], None]
Flags = NDArray[np.bool_]
LOCATED_IMAGES = 1000
"""Whose objects are looked up, at most."""
_DIVIDED: dict[Divider, str] = {
    "folders": "as the folders divide it",
    "shards": "as the shards divide it",
    "official": "as published",
    "hashed": "divided by file name",
}


@dataclass(frozen=True)
class Validation:
    """What came of it, and where it is written."""

    report: ValidationReport
    evidence: Evidence
    page: Path
    document: Path
    model: Path
    """The file to run: the int8 one when there is one."""

    def require_passed(self) -> None:
        """Raise unless every gate is shown to be kept.

        Raises:
            ValidationFailed: naming how many are not, and where to read of it.
        """
        if self.report.passed:
            return
        checks = self.report.checks
        failed = sum(check.outcome == "failed" for check in checks)
        unshown = [check for check in checks if check.outcome == "not shown"]
        faults = [f"{failed} of {len(checks)} checks failed"] if failed or not unshown else []
        if unshown:
            needed = max(check.images_needed or 0 for check in unshown)
            enough = f" (about {needed:,} would show it)" if needed else ""
            verb = "is" if len(unshown) == 1 else "are"
            faults.append(
                f"{len(unshown)} of {len(checks)} checks {verb} not shown with {self.report.images:,} images{enough}"
            )
        raise ValidationFailed(f"{' and '.join(faults)}, see {self.page}")


def validate_model(
    source: str,
    *,
    data: str | None = None,
    boxes: Path | None = None,
    weights: Path | None = None,
    profile: DeviceProfile | None = None,
    quick: bool = False,
    out: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Validation:
    """Hold the exported files of a run (or one model file) against PyTorch, and write the report.

    Args:
        source: a run folder with exported files, a file in one, or a `.onnx` file from a model by name.
        data: pictures; None takes those that the run was trained with.
        boxes: where the objects are (see `kdedge.data.objects`); None takes `boxes.csv` of the data, if it has one.
        weights: of a file from a model by name, the weights that it was exported from; None looks for them by their
            name, beside the file and in the current folder.
        profile: the device whose budgets must be kept; None takes the one that the int8 file was made for, if any.
        quick: leave out what asks about every image many times.
        out: folder of the report; None takes `report/` in the run, or beside the model file.
        progress: told while pictures are read and models run.

    Raises:
        UsageError: there is nothing to validate, its weights are not found, or it was exported from others.
        DataError: the pictures do not fit the model.
    """
    fp32_path = Path(source) / "model.onnx" if is_run(Path(source)) else Path(source)
    if not fp32_path.is_file():
        hint = f"kdedge export {source} --quantize" if is_run(Path(source)) else "kdedge export MODEL -o FILE"
        raise UsageError(f"There is no model file {fp32_path}. Write it first: {hint}")
    fp32 = Model.load(fp32_path)
    if fp32.metadata.quantization is not None:
        raise UsageError(f"{fp32_path} is quantized. Name the fp32 file: the int8 one beside it is validated with it.")
    int8_path = fp32_path.with_suffix(".int8.onnx")
    int8 = Model.load(int8_path) if int8_path.is_file() else None
    lineage = fp32.metadata.lineage
    run = fp32_path.parent if "model" in lineage and is_run(fp32_path.parent) else None
    record = None if run is None else read_run(run)
    student = _same_weights(run, fp32_path, lineage, weights)
    if int8 is not None and int8.metadata.lineage != lineage:
        raise UsageError(f"{int8_path} was exported from another model than {fp32_path}. Export both again.")
    if int8 is not None and int8.metadata.outputs != fp32.metadata.outputs:
        raise UsageError(
            f"{int8_path} was exported with another --method or --target-layer than {fp32_path}. Export both again."
        )
    if not fp32.has_map:
        raise UsageError(f"{fp32_path} was exported with --method none and has no map to validate.")
    _require_one_size(student, fp32, int8)
    root = data or (None if record is None else record.data["source"])
    if root is None:
        raise UsageError(f"{fp32_path} does not come from a run, so its pictures are unknown. Name them: --data DIR.")
    notes: list[str] = []
    profile = profile or _made_for(int8, notes)
    method, target_layer = fp32.metadata.outputs.method, fp32.metadata.outputs.target_layer
    teacher, teacher_name, teacher_sha256 = _teacher(None if record is None else record.teacher, method, notes)
    collection = scan(root, unlabelled_ok=True)
    # As in training, and not as the file says: a file that says otherwise is found out by it.
    decoded = decode(
        collection.val, student.input, progress=lambda done, total: progress("reading pictures", done, total)
    )
    if decoded.problems:
        notes.append(str(decoded.problems))
    labels = _labels(run, student, fp32)
    files: dict[Role, Model] = {"fp32": fp32}
    if int8 is not None:
        files["int8"] = int8
    threads = 1 if profile is None or profile.threads is None else profile.threads
    if profile is not None:
        where = f"on this machine ({machine_name()})"
        notes.append(f"latency and memory were measured {where}; {profile.name} is {profile.description}")
    models = Models(
        student=deploy(student.model, student.input, method, target_layer),
        fp32=fp32,
        int8=int8,
        teacher=teacher,
        trained_input=student.input,
        origins={
            "teacher": Origin(teacher_name, teacher_sha256),
            "student": Origin(student.spec.name, student.origin["weights_sha256"]),
        },
    )
    shown = ValidationSet(
        images=decoded.images,
        labels=labels,
        targets=_targets(collection, decoded.targets, labels),
        names=[sample.name for sample in decoded.samples],
        held_out=_held_out(collection, decoded, record, fp32),
        masks=_masks(boxes, collection, decoded, student, notes, progress),
        source=Data(f"{collection.name}, validation side ({_DIVIDED[collection.split]})", collection.fingerprint),
    )
    footprints = measure_footprints(files, student.parameters, threads)
    deployment = (
        Deployment(footprints=footprints) if profile is None else Deployment(profile.name, profile.budgets, footprints)
    )
    report, evidence = validate(
        models,
        shown,
        deployment,
        quick=quick,
        notes=notes,
        progress=lambda title, total, done: progress(title, done, total),
    )
    report_folder = out or (Path(source) / "report" if is_run(Path(source)) else fp32_path.with_suffix(".report"))
    page, document = write_report(report, evidence, report_folder)
    model = fp32_path if int8 is None else int8_path
    return Validation(report, evidence, page, document, model)


def _made_for(int8: Model | None, notes: list[str]) -> DeviceProfile | None:
    """The device that an int8 file was made for; None where there is no file, or no budgets for it."""
    name = (int8.metadata.quantization or {}).get("device") if int8 is not None else None
    if name is None:
        return None
    try:
        profile = load_profile(name)
    except UsageError as error:
        notes.append(f"no budgets are asked for: {error}")
        return None
    if profile.budgets == Budgets():
        return None
    notes.append(f"the budgets are those of {name}, which the int8 file was made for; others: --device NAME")
    return profile


def _labels(run: Path | None, student: TrainedModel, fp32: Model) -> tuple[str, ...]:
    """The class names to expect in the files: those of training, or the file's own where nobody else names them."""
    unnamed = student.labels == tuple(str(index) for index in range(len(student.labels)))
    return fp32.metadata.labels if run is None and unnamed else student.labels


def _require_one_size(student: TrainedModel, *files: Model | None) -> None:
    size = student.input.height, student.input.width
    for file in files:
        if file is not None and (file.metadata.input.height, file.metadata.input.width) != size:
            spec = file.metadata.input
            raise UsageError(
                f"{file.path} takes {spec.width} × {spec.height} px, and its model was trained at "
                f"{size[1]} × {size[0]}. Export it again."
            )


def _held_out(collection: Collection, decoded: Decoded, record: RunRecord | None, fp32: Model) -> Flags | None:
    """Which pictures did not fit the file's temperature; None where it was fitted on none of them."""
    if record is None or "temperature_images" not in fp32.metadata.metrics:
        return None
    if collection.source != record.data["source"] and collection.fingerprint != record.data["fingerprint"]:
        return None
    fitted = {sample.name for sample in fitting_half(collection.val).samples}
    return np.array([sample.name not in fitted for sample in decoded.samples])


def _masks(
    boxes: Path | None,
    collection: Collection,
    decoded: Decoded,
    student: TrainedModel,
    notes: list[str],
    progress: Progress,
) -> list[Flags | None] | None:
    """Where the objects are, in evenly spaced pictures; None where nobody says."""
    where = boxes or boxes_beside(collection.source)
    if where is None or not len(decoded):
        return None
    count = min(len(decoded), LOCATED_IMAGES)
    chosen = [index * len(decoded) // count for index in range(count)]
    samples = [decoded.samples[index] for index in chosen]
    try:
        found = object_masks(where, samples, student.input, lambda done, of: progress("reading boxes", done, of))
    except DataError as error:
        if boxes is not None:
            raise
        notes.append(f"the maps are not held against objects: {error}")  # the user has not asked for it
        return None
    masks: list[Flags | None] = [None] * len(decoded)
    for index, mask in zip(chosen, found, strict=True):
        masks[index] = mask
    return masks


def _same_weights(run: Path | None, path: Path, lineage: dict[str, Any], weights: Path | None) -> TrainedModel:
    """The PyTorch model that the file was exported from: of the run that holds the file, or by name."""
    if "file" in lineage:
        raise UsageError(
            f"{path} was made of {lineage['file']['name']}, not of a PyTorch model that it could be held against. "
            "`kdedge export --from-onnx` has compared it with that file."
        )
    origin = lineage.get("student", {})
    if origin.get("weights") is None:
        raise UsageError(
            f"{path} was exported with random weights, which cannot be had again to compare with. "
            "Export it with --weights FILE, or from a run."
        )
    if weights is not None and "model" in lineage:
        raise UsageError(f"{path} was exported from a run, which has its own weights. Leave --weights {weights} out.")
    if run is not None:
        trained = load_trained(str(run))
    elif "model" in lineage:
        raise UsageError(
            f"{path} was exported from the run {origin['source']}, which is not around it. Validate the run itself: "
            f"kdedge validate {origin['source']}"
        )
    else:
        trained = load_trained(origin["source"], weights=_weights_file(path, origin["weights"], weights))
    if trained.origin["weights_sha256"] != origin["weights_sha256"]:
        or_named = "" if run is not None else ", or name the file that it was made of: --weights FILE"
        raise UsageError(
            f"{path} was exported from other weights than {trained.origin['weights']} holds. Export it again{or_named}."
        )
    return trained


def _weights_file(path: Path, name: str, weights: Path | None) -> Path:
    """The file of weights that a model file was exported from: the one that is named, or one of its name nearby."""
    if weights is not None:
        return weights
    nearby = [file for file in (path.parent / name, Path(name)) if file.is_file()]
    if not nearby:
        raise UsageError(
            f"{path} was exported from the weights {name}, which are neither beside it nor in the current folder. "
            "Say where they are: --weights FILE."
        )
    return nearby[0]


def _teacher(
    origin: dict[str, Any] | None, method: str, notes: list[str]
) -> tuple[Deployed | Plain | Model | None, str, str | None]:
    """The teacher, its name, and the hash of its weights; without its map where it does not allow the method."""
    if origin is None:
        return None, "", None
    if "members" in origin:
        notes.append(f"the teachers are left out, several taught together: {origin['source']}")
        return None, "", None
    try:
        teacher = load_origin(origin["source"], origin["weights"], origin.get("weights_sha256"))
        if isinstance(teacher, Model):
            return teacher, Path(origin["source"]).name, None
    except KdedgeError as error:
        notes.append(f"the teacher is left out, it cannot be loaded: {error}")
        return None, "", None
    try:
        asked: Deployed | Plain = deploy(teacher.model, teacher.input, method)
    except HeadNotSupported as error:
        notes.append(f"the teacher is asked for its answers only: {error}")
        asked = Plain(teacher.model.eval(), teacher.input)
    return asked, teacher.spec.name, teacher.origin["weights_sha256"]


def _targets(collection: Collection, targets: Integers, labels: tuple[str, ...]) -> Integers | None:
    """The data set's classes as indices into the model's labels; None for pictures without classes."""
    if not collection.labels:
        return None
    return as_model_classes(targets, collection.labels, labels, collection.source)

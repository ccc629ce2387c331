"""From a run or a model file to the report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.data import Collection, decode, scan
from kdedge.data.collection import Divider
from kdedge.models.run_folder import is_run, read_run
from kdedge.models.trained import TrainedModel, load_trained
from kdedge.workflow.origins import as_model_classes, load_origin
from kdedge_export.errors import HeadNotSupported
from kdedge_export.graph import Deployed, deploy
from kdedge_export.validate import Evidence, ValidationReport, validate, write_report
from kdedge_runtime import Model
from kdedge_runtime.arrays import Integers
from kdedge_runtime.errors import KdedgeError, UsageError, ValidationFailed

__all__ = ["Validation", "validate_model"]

Progress = Callable[[str, int, int], None]
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
    notes: tuple[str, ...]
    """What was left out, and why."""

    def require_passed(self) -> None:
        """Raise unless every gate was kept.

        Raises:
            ValidationFailed: naming how many failed and where to read of it.
        """
        if not self.report.passed:
            failed = sum(check.passed is False for check in self.report.checks)
            raise ValidationFailed(f"{failed} of {len(self.report.checks)} checks failed, see {self.page}")


def validate_model(
    source: str, *, data: str | None = None, out: Path | None = None, progress: Progress = lambda *_: None
) -> Validation:
    """Hold the exported files of a run (or one model file) against PyTorch, and write the report.

    Args:
        source: a run folder with exported files, a file in one, or a `.onnx` file from a model by name.
        data: pictures; None takes those that the run was trained with.
        out: folder of the report; None takes `report/` in the run, or beside the model file.
        progress: told while pictures are read and models run.

    Raises:
        UsageError: there is nothing to validate, or it was exported from other weights.
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
    student = _same_weights(run, fp32_path, lineage)
    if int8 is not None and int8.metadata.lineage != lineage:
        raise UsageError(f"{int8_path} was exported from another model than {fp32_path}. Export both again.")
    if not fp32.has_map:
        raise UsageError(f"{fp32_path} was exported with --method none and has no map to validate.")
    root = data or (None if record is None else record.data["source"])
    if root is None:
        raise UsageError(f"{fp32_path} does not come from a run, so its pictures are unknown. Name them: --data DIR.")
    notes: list[str] = []
    teacher, teacher_name = _teacher(None if record is None else record.teacher, notes)
    collection = scan(root, unlabelled_ok=True)
    decoded = decode(
        collection.val, fp32.metadata.input, progress=lambda done, total: progress("reading pictures", done, total)
    )
    if decoded.problems:
        notes.append(str(decoded.problems))
    report, evidence = validate(
        student=deploy(student.model, student.input),
        fp32=fp32,
        int8=int8,
        teacher=teacher,
        images=decoded.images,
        targets=_targets(collection, decoded.targets, fp32.metadata.labels),
        labels=fp32.metadata.labels,
        names=[sample.name for sample in decoded.samples],
        student_name=student.spec.name,
        teacher_name=teacher_name,
        data=f"{collection.name}, validation side ({_DIVIDED[collection.split]})",
        progress=lambda title, total, done: progress(title, done, total),
    )
    report_folder = out or (Path(source) / "report" if is_run(Path(source)) else fp32_path.with_suffix(".report"))
    page, document = write_report(report, evidence, report_folder)
    model = fp32_path if int8 is None else int8_path
    return Validation(report, evidence, page, document, model, tuple(notes))


def _same_weights(run: Path | None, path: Path, lineage: dict[str, Any]) -> TrainedModel:
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
    if run is not None:
        trained = load_trained(str(run))
    elif "model" in lineage:
        raise UsageError(
            f"{path} was exported from the run {origin['source']}, which is not around it. Validate the run itself: "
            f"kdedge validate {origin['source']}"
        )
    else:
        trained = load_trained(origin["source"], weights=Path(origin["weights"]))
    if trained.origin["weights_sha256"] != origin["weights_sha256"]:
        held = trained.origin["weights"]
        raise UsageError(f"{path} was exported from weights that {held} no longer holds. Export it again.")
    return trained


def _teacher(origin: dict[str, Any] | None, notes: list[str]) -> tuple[Deployed | Model | None, str]:
    if origin is None:
        return None, ""
    if "members" in origin:
        notes.append(f"the teachers are left out, several taught together: {origin['source']}")
        return None, ""
    try:
        teacher = load_origin(origin["source"], origin["weights"], origin.get("weights_sha256"))
        if isinstance(teacher, Model):
            return teacher, Path(origin["source"]).name
        return deploy(teacher.model, teacher.input), teacher.spec.name
    except HeadNotSupported as error:
        notes.append(f"the teacher is left out: {error}")
    except KdedgeError as error:
        notes.append(f"the teacher is left out, it cannot be loaded: {error}")
    return None, ""


def _targets(collection: Collection, targets: Integers, labels: tuple[str, ...]) -> Integers | None:
    """The data set's classes as indices into the model's labels; None for pictures without classes."""
    if not collection.labels:
        return None
    return as_model_classes(targets, collection.labels, labels, collection.source)

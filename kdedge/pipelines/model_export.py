"""Export a run or a named model to model files."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kdedge.data.dataset_index import source_name
from kdedge.models.artifacts import Artifacts
from kdedge.models.code_trust import allow_typed
from kdedge.models.run_folder import RunRecord
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.pipelines.calibration_images import calibration_images
from kdedge.pipelines.quantization_settings import recipe_of
from kdedge.pipelines.temperature_fit import TemperatureFit, fit_run
from kdedge_export.onnx_graph.model_file import save_model
from kdedge_export.quantization import FidelityGoal, Tradeoff, quantize
from kdedge_export.verified_export import export
from kdedge_runtime import Metadata, Model
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.saliency_methods import NO_MAP
from kdedge_runtime.util.files import Location
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["ExportResult", "export_model"]

_SHARED = ("labels", "input", "task", "lineage", "temperature")
"""Metadata fields, besides the outputs, that an fp32 file shares with its int8 file."""


@dataclass(frozen=True)
class ExportResult:
    """Written files with the results of their checks."""

    fp32: Path
    metadata: Metadata
    logits_error: float
    """Maximum error of the logits against PyTorch over two inputs, relative to their range."""
    map_error: float | None
    assumed_input: str | None = None
    """Assumption about preprocessing, if the weights do not specify it; None otherwise."""
    fit: TemperatureFit | None = None
    """Temperature scaling; None for a model without a run."""
    int8: Path | None = None
    """int8 file; None if it was not requested or the goal was missed."""
    removed: Path | None = None
    """Removed int8 file of an earlier export, if it belonged to another model or the goal was missed."""
    int8_note: dict[str, Any] | None = None
    """Quantization note in the metadata of the int8 file."""
    tradeoff: Tradeoff | None = None
    """Candidates evaluated for the quantization goal."""
    problems: str | None = None
    """Description of unreadable calibration images, or None."""

    def __fspath__(self) -> str:
        """Return the path of the fp32 file, so that `validate` and `explain` accept the result."""
        return str(self.fp32)


def export_model(
    source: Location,
    *,
    weights: Path | None = None,
    output: Path | None = None,
    method: str | None = None,
    target_layer: str | None = None,
    with_int8: bool = False,
    goal: FidelityGoal | None = None,
    data: str | None = None,
    profile: DeviceProfile,
    progress: ProgressCallback = no_progress,
) -> ExportResult:
    """Write the fp32 model file and optionally its int8 file (`model.onnx`, `model.int8.onnx`).

    The int8 file of an earlier export is removed if it belongs to another model than the new fp32 file, or if the new
    one misses the goal. Otherwise a file that was never checked against the goal would stay next to the model.

    Args:
        source: run folder or model name.
        weights: trained weights of a model given by name.
        output: the fp32 file; None writes into the run folder, or names the file after the model.
        method: saliency method, one of `kdedge_export.saliency.METHODS`, or `none`; None takes the default of the head.
        target_layer: module path of the target layer; None finds it automatically.
        with_int8: True to quantize.
        goal: quantization goal; None accepts plain int8.
        data: images to calibrate on; None takes the run's training split.
        profile: device profile of the int8 file.
        progress: called during long steps.

    Raises:
        HeadNotSupported: the model does not support this method.
        GraphNotSupported: PyTorch cannot export the model as a graph.
        UsageError: calibration images are missing, the source is unusable, or a run folder is required.
        KdedgeError: the exported graph does not match PyTorch, or the match is hidden by rounding.
    """
    artifacts = Artifacts.open(source)
    allow_typed(artifacts.source)
    trained = load_trained(artifacts, weights=weights)
    output = output or _default_output(artifacts, trained, explained=method != NO_MAP)
    if with_int8:
        images = calibration_images(artifacts, trained, data, progress)
    progress("exporting", 0, 1)
    fit: TemperatureFit | None = None

    def with_temperature(model: Model, metadata: Metadata) -> Metadata:
        nonlocal fit
        fit = fit_run(artifacts, model)
        if fit is None or not fit.images:
            return metadata
        return replace(
            metadata, temperature=fit.temperature, metrics=metadata.metrics | {"temperature_images": fit.images}
        )

    exported = export(
        trained.model,
        trained.input,
        trained.labels,
        output,
        method=method,
        target_layer=target_layer,
        task=trained.task,
        lineage=_lineage(artifacts, trained),
        metrics=_run_metrics(artifacts.record),
        complete=with_temperature,
    )
    metadata, graph = exported.metadata, exported.graph
    progress("exporting", 1, 1)
    int8_path = output.with_suffix(".int8.onnx")
    removed = _removed(int8_path) if _is_of_another_model(int8_path, metadata) else None
    result = ExportResult(
        output,
        metadata,
        exported.logits_error,
        exported.map_error,
        assumed_input=trained.assumed_input,
        fit=fit,
        removed=removed,
    )
    if not with_int8:
        return result
    recipe = recipe_of(profile)

    quantized = quantize(
        graph,
        images.calibration,
        images.held_out,
        recipe,
        targets=images.targets,
        goal=goal,
        progress=progress,
    )
    note = quantized.note | {"device": profile.name}
    result = replace(result, int8_note=note, tradeoff=quantized.tradeoff, problems=images.problems)
    if not quantized.tradeoff.met:
        return replace(result, removed=removed or _removed(int8_path))
    save_model(quantized.model, replace(metadata, quantization=note), int8_path)
    return replace(result, int8=int8_path)


def _is_of_another_model(path: Path, metadata: Metadata) -> bool:
    """Return True if the int8 file exists but belongs to another model or uses another explanation."""
    if not path.is_file():
        return False
    try:
        found = Model.load(path).metadata
    except KdedgeError:
        return True
    written = Metadata.from_props(metadata.to_props())  # with lists instead of tuples, as read from a file
    is_alike = all(getattr(found, name) == getattr(written, name) for name in _SHARED)
    return not (is_alike and found.outputs.explains_like(written.outputs))


def _removed(path: Path) -> Path | None:
    """Remove a file and return its path; None if it does not exist."""
    if not path.is_file():
        return None
    path.unlink()
    return path


def _default_output(artifacts: Artifacts, trained: TrainedModel, *, explained: bool) -> Path:
    stem = "model" if explained else "model.plain"
    if artifacts.run is not None:
        return artifacts.run / f"{stem}.onnx"
    return Path(trained.spec.name.rpartition(":")[2] + (".onnx" if explained else ".plain.onnx"))


def _lineage(artifacts: Artifacts, trained: TrainedModel) -> dict[str, Any]:
    """Describe the model's origin by names and hashes, without paths, since the file is moved between machines."""
    weights = trained.origin["weights"]
    student = trained.origin | {"weights": None if weights is None else Path(weights).name}
    record = artifacts.record
    if artifacts.run is None or record is None:
        return {"student": student}
    data = {"name": source_name(record.data["source"]), **record.data}
    del data["source"]  # a path
    return {
        "student": student | {"source": artifacts.run.resolve().name},
        "teacher": None if record.teacher is None else _teacher_lineage(record.teacher),
        "data": data,
        "model": asdict(replace(record.model, name=Path(record.model.name).name)),
    }


def _teacher_lineage(teacher: dict[str, Any]) -> dict[str, Any]:
    """Return the name of a run's teacher and its weights hash; for an ensemble all names, without a hash."""
    names = [Path(member["source"]).name for member in teacher.get("members", [teacher])]
    return {"name": " + ".join(names), "weights_sha256": teacher.get("weights_sha256")}


def _run_metrics(record: RunRecord | None) -> dict[str, Any]:
    """Return the validation metrics of the exported (best) epoch, with a note that they belong to the PyTorch model."""
    if record is None or record.result is None:
        return {}
    best = record.result["best"]
    figures = {key: _legible(value) for key, value in best.items() if key.startswith("val_") or key == "epoch"}
    return {"measured_on": f"the PyTorch model, {record.data['val']} validation images"} | figures


def _legible(value: float) -> float:
    """Round a float32 metric to six decimals."""
    return round(value, 6) if isinstance(value, float) else value

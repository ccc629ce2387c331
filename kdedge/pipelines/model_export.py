"""Export a run or a named model to model files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kdedge.data.dataset_index import source_name
from kdedge.models.artifacts import Artifacts
from kdedge.models.code_trust import allow_typed
from kdedge.models.network_weights import NetworkWeights
from kdedge.models.run_folder import RunRecord
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.models.zero_shot import ZeroShot
from kdedge.pipelines.calibration_samples import calibration_samples
from kdedge.pipelines.familiarity_samples import familiarity_samples
from kdedge.pipelines.missed_bounds import missed_bounds
from kdedge.pipelines.quantization_settings import recipe_of
from kdedge.pipelines.temperature_fit import TemperatureFit, fit_run
from kdedge_export.file_quantization import QuantizedFile, write_precision
from kdedge_export.quantization import FidelityGoal
from kdedge_export.verified_export import export
from kdedge_runtime import Metadata, Model
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.precision import FP32, check_fp32_name, fastest, find_variants, precision_named, variant_path
from kdedge_runtime.saliency_methods import NO_MAP
from kdedge_runtime.util.files import Location
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["ExportResult", "export_model"]

_SHARED = ("labels", "input", "task", "lineage", "temperature")
"""Metadata fields, besides the outputs, that an fp32 file shares with its other precisions."""


@dataclass(frozen=True)
class ExportResult:
    """Written files with the results of their checks."""

    fp32: Path
    metadata: Metadata = field(repr=False)
    logits_error: float
    """Maximum error of the logits against PyTorch over two inputs, relative to their range."""
    map_error: float | None
    weights: NetworkWeights | None = None
    """Weights of a model given by name; None for a run, or for random weights."""
    assumed_input: str | None = None
    """Assumption about preprocessing, if the weights do not specify it; None otherwise."""
    fit: TemperatureFit | None = None
    """Temperature scaling; None for a model without a run."""
    quantized: Mapping[str, QuantizedFile] = field(default_factory=dict, repr=False)
    """Requested files in other precisions, by the name of the precision."""
    removed: tuple[Path, ...] = ()
    """Removed files of an earlier export, if they belonged to another model."""
    problems: str | None = None
    """Description of unreadable calibration samples, or None."""

    def __fspath__(self) -> str:
        """Return the path of the fp32 file, so that `validate` and `explain` accept the result."""
        return str(self.fp32)

    @property
    def fastest(self) -> Path:
        """Path of the file to run on machines like this one.

        A less exact file must be at least 5% faster, and keep the bounds of validation on held-out samples.
        """
        paths, shares = {FP32.name: self.fp32}, {FP32.name: 1.0}
        for name, file in self.quantized.items():
            misses = file.tradeoff is not None and missed_bounds(name, file.tradeoff)
            if file.path is not None and "latency_ms" in file.note and not misses:
                paths[name] = file.path
                shares[name] = file.note["latency_ms"][name] / file.note["latency_ms"][FP32.name]
        return paths[fastest(shares)]


def export_model(
    source: Location,
    *,
    weights: Path | None = None,
    pretrained: bool | None = None,
    zero_shot: ZeroShot | None = None,
    output: Path | None = None,
    method: str | None = None,
    target_layer: str | None = None,
    precisions: Sequence[str] = (),
    goal: FidelityGoal | None = None,
    data: str | None = None,
    profile: DeviceProfile,
    progress: ProgressCallback = no_progress,
) -> ExportResult:
    """Write the fp32 model file and optionally files in other precisions (`model.onnx`, `model.int8.onnx`).

    A file of an earlier export is removed if it belongs to a different model from the new fp32 file, or if the new one
    misses the goal. Otherwise a file that was never checked against the goal would stay next to the model.

    Args:
        source: run folder or model name.
        weights: trained weights of a model given by name; None takes its published weights.
        pretrained: False exports random weights of a model given by name; see `find_weights`.
        zero_shot: classes of a zero-shot classifier, named `clip:MODEL/TAG`.
        output: the fp32 file; None writes into the run folder, or names the file after the model.
        method: saliency method, one of `kdedge_export.saliency.METHODS`, or `none`; None takes the default of the head.
        target_layer: module path of the target layer; None finds it automatically.
        precisions: names of the recipes, keys of `kdedge_export.quantization.RECIPES`.
        goal: fidelity to keep by precisions that are calibrated; None accepts any loss.
        data: samples to calibrate on and for familiarity; None takes the run's.
        profile: device profile that quantized files are optimized for.
        progress: called during long steps.

    Raises:
        HeadNotSupported: the model does not support this method.
        GraphNotSupported: PyTorch cannot export the model as a graph.
        UsageError: calibration samples are missing, the source is unusable, a run folder is required, there is no such
            precision, or none of them can meet a goal.
        KdedgeError: the exported graph does not match PyTorch, or the match is hidden by rounding.
    """
    calibrated = [name for name in precisions if precision_named(name).is_calibrated]
    if goal not in (None, FidelityGoal()) and not calibrated:
        raise UsageError(
            "Only precisions that are calibrated, such as int8, can meet a goal. Add int8, or remove the goal."
        )
    artifacts = Artifacts.open(source)
    allow_typed(artifacts.source)
    output = output or _default_output(artifacts, explained=method != NO_MAP)
    check_fp32_name(output)
    trained = load_trained(artifacts, weights=weights, pretrained=pretrained, zero_shot=zero_shot)
    if not trained.labels:
        raise UsageError(
            f"{trained.spec.name} is an encoder without classes, so it has no predictions to export. Train a "
            f"classifier from it: kdedge train DATA --model {artifacts.source}"
        )
    known = familiarity_samples(artifacts, trained, data, progress)
    is_needed = bool(calibrated) or (bool(precisions) and data is not None)
    calibration = calibration_samples(artifacts, trained, data, progress) if is_needed else None
    progress("exporting", 0, 1)
    fit: TemperatureFit | None = None

    def with_temperature(model: Model, metadata: Metadata) -> Metadata:
        nonlocal fit
        fit = fit_run(artifacts, model)
        if fit is None or not fit.samples:
            return metadata
        return replace(
            metadata, temperature=fit.temperature, metrics=metadata.metrics | {"temperature_samples": fit.samples}
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
        familiarity=known,
        complete=with_temperature,
    )
    metadata, graph = exported.metadata, exported.graph
    progress("exporting", 1, 1)
    stale = [path for path in find_variants(output) if _is_of_another_model(path, metadata)]
    for path in stale:
        path.unlink()
    quantized = {
        name: write_precision(
            graph,
            metadata,
            variant_path(output, precision_named(name)),
            name,
            None if calibration is None else calibration.sets,
            familiarity=known,
            settings=recipe_of(profile),
            goal=goal if name in calibrated else None,
            device=profile.name,
            progress=progress,
        )
        for name in dict.fromkeys(precisions)
    }
    written = {file.path for file in quantized.values()}
    return ExportResult(
        output,
        metadata,
        exported.logits_error,
        exported.map_error,
        weights=trained.weights,
        assumed_input=trained.assumed_input,
        fit=fit,
        quantized=quantized,
        removed=tuple(path for path in stale if path not in written),
        problems=None if calibration is None else calibration.problems,
    )


def _is_of_another_model(path: Path, metadata: Metadata) -> bool:
    """Return True if a file belongs to another model or uses another explanation."""
    try:
        found = Model.load(path).metadata
    except KdedgeError:
        return True
    written = Metadata.from_props(metadata.to_props())  # with lists instead of tuples, as read from a file
    is_alike = all(getattr(found, name) == getattr(written, name) for name in _SHARED)
    is_alike &= _method(found) == _method(written)
    return not (is_alike and found.outputs.explains_like(written.outputs))


def _method(metadata: Metadata) -> str | None:
    """Return the method of familiarity, whose threshold differs between precisions."""
    return None if metadata.familiarity is None else metadata.familiarity.method


def _default_output(artifacts: Artifacts, *, explained: bool) -> Path:
    stem = "model" if explained else "model.plain"
    if artifacts.run is not None:
        return artifacts.run / f"{stem}.onnx"
    return Path(artifacts.source.rpartition(":")[2].replace("/", ".") + (".onnx" if explained else ".plain.onnx"))


def _lineage(artifacts: Artifacts, trained: TrainedModel) -> dict[str, Any]:
    """Describe the model's origin by names and hashes, without paths, since the file is moved between machines."""
    weights = trained.origin["weights"]
    student = trained.origin | {"weights": None if weights is None else Path(weights).name}
    record = artifacts.record
    if artifacts.run is None or record is None:
        return {"student": student}
    data = {"name": source_name(record.data["source"]), **record.data}
    del data["source"]  # a path
    if (unlabeled := data.get("unlabeled")) is not None:
        data["unlabeled"] = {name: value for name, value in unlabeled.items() if name != "locations"}
    return {
        "student": student | {"source": artifacts.run.resolve().name},
        "teacher": None if record.teacher is None else _teacher_lineage(record.teacher),
        "start": None if record.start is None else _start_lineage(record.start),
        "data": data,
        "model": asdict(replace(record.model, name=Path(record.model.name).name)),
    }


def _teacher_lineage(teacher: dict[str, Any]) -> dict[str, Any]:
    """Return the name of a run's teacher and its weights hash; for an ensemble all names, without a hash."""
    names = [Path(member["source"]).name for member in teacher.get("members", [teacher])]
    return {"name": " + ".join(names), "weights_sha256": teacher.get("weights_sha256")}


def _start_lineage(start: dict[str, Any]) -> dict[str, Any]:
    """Describe the weights that a run started from, with their address and license if they are published."""
    name = Path(start["source"]).name if start["weights"] is None else Path(start["weights"]).name
    return {key: value for key, value in start.items() if key not in ("source", "weights")} | {"name": name}


def _run_metrics(record: RunRecord | None) -> dict[str, Any]:
    """Return the validation metrics of the exported (best) epoch, with a note that they belong to the PyTorch model."""
    if record is None or record.result is None:
        return {}
    best = record.result["best"]
    figures = {key: _legible(value) for key, value in best.items() if key.startswith("val_") or key == "epoch"}
    return {"measured_on": f"the PyTorch model, {record.data['val']} validation samples"} | figures


def _legible(value: float) -> float:
    """Round a float32 metric to six decimals."""
    return round(value, 6) if isinstance(value, float) else value

"""Files under validation and the PyTorch model they were exported from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.data.dataset_options import NO_OPTIONS, DatasetOptions
from kdedge.models.artifacts import Artifacts
from kdedge.models.code_trust import allow_typed
from kdedge.models.custom import code_sha256
from kdedge.models.custom_path import is_factory
from kdedge.models.run_folder import RunRecord
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.models.zero_shot import ZeroShot
from kdedge_runtime import Metadata, Model
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.precision import FP32, PRECISIONS, variant_path

__all__ = ["ExportedFiles", "open_files"]


@dataclass(frozen=True)
class ExportedFiles:
    """Exported files of one model, with the model itself."""

    fp32: Model
    converted: Mapping[str, Model]
    """Files in other precisions, by the name of the precision."""
    student: TrainedModel | None
    """PyTorch model with the exported weights; None for a file of another framework."""
    run: Artifacts | None
    """Run that holds the files; None for a named model."""

    def options_for(self, data: str) -> DatasetOptions:
        """Return the options of reading the dataset of the run, or other data like it; none without a run."""
        return NO_OPTIONS if self.run is None else self.run.options_for(data)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Classes of the dataset that the run was trained without; empty without a run."""
        return () if self.run is None else self.run.left_out

    @property
    def record(self) -> RunRecord | None:
        """Record of the run, or None."""
        return None if self.run is None else self.run.record

    @property
    def is_fitted(self) -> bool:
        """True if training, calibration or a familiarity threshold used samples."""
        familiarity = self.fp32.metadata.familiarity
        has_threshold = familiarity is not None and familiarity.threshold is not None
        is_calibrated = any(PRECISIONS[name].is_calibrated for name in self.converted)
        return self.run is not None or is_calibrated or has_threshold

    @property
    def input(self) -> InputSpec:
        """Input the student was trained with, or the fp32 file's input without a student."""
        return self.fp32.metadata.input if self.student is None else self.student.input


def open_files(artifacts: Artifacts, weights: Path | None = None, model: str | None = None) -> ExportedFiles:
    """Open the exported files of a run, or a model file with its other precisions next to it.

    Args:
        artifacts: run with exported files, a file in one, or an `.onnx` file of a named model or another framework.
        weights: weights that the file of a named model was exported from. None searches by name, next to the file and
            in the current folder.
        model: function that builds the model, for a file exported from a Python file. The name in the model file is
            never loaded.

    Raises:
        UsageError: no file with a map exists, the files differ, or the weights are missing or different.
    """
    fp32_path = artifacts.fp32_file()
    fp32 = Model.load(fp32_path)
    if fp32.metadata.precision != FP32.name:
        raise UsageError(f"{fp32_path} is quantized. Give the fp32 file; the files next to it are validated too.")
    converted = {
        name: Model.load(path, exact_sums=True)
        for name, precision in PRECISIONS.items()
        if name != FP32.name and (path := variant_path(fp32_path, precision)).is_file()
    }
    lineage = fp32.metadata.lineage
    run = _run_of(artifacts, fp32_path) if "model" in lineage else None
    student = _same_weights(run, fp32_path, fp32.metadata, weights, model)
    spec = fp32.metadata.input if student is None else student.input
    for name, file in converted.items():
        _require_same_model(name, file, fp32)
    if not fp32.has_map:
        raise UsageError(f"{fp32_path} was exported with --method none and has no map to validate.")
    _require_one_size(spec, fp32, *converted.values())
    return ExportedFiles(fp32, converted, student, run)


def _require_same_model(name: str, file: Model, fp32: Model) -> None:
    found = file.metadata
    if found.precision != name:
        raise UsageError(f"{file.path} has the precision {found.precision}, not {name}. Export both files again.")
    if found.lineage != fp32.metadata.lineage:
        raise UsageError(f"{file.path} was exported from a different model from {fp32.path}. Export both again.")
    if not found.outputs.explains_like(fp32.metadata.outputs):
        raise UsageError(
            f"{file.path} was exported with another --method or --target-layer than {fp32.path}. Export both again."
        )


def _run_of(artifacts: Artifacts, path: Path) -> Artifacts | None:
    """Return the run that holds a model file, or None."""
    if artifacts.run is not None:
        return artifacts
    beside = Artifacts.open(path.parent)
    return None if beside.run is None else beside


def _same_weights(
    run: Artifacts | None, path: Path, metadata: Metadata, weights: Path | None, model: str | None
) -> TrainedModel | None:
    """Load the PyTorch model that a file was exported from; None for a file of another framework."""
    lineage, labels = metadata.lineage, metadata.labels
    if "file" in lineage:
        for option, value in (("--weights", weights), ("--model", model)):
            if value is not None:
                made_of = lineage["file"]["name"]
                raise UsageError(f"{path} was made from {made_of}, not from a PyTorch model. Remove {option} {value}.")
        return None
    origin = lineage.get("student")
    if origin is None:
        raise UsageError(
            f"{path} has no record of its weights, as a file written by kdedge_export.export. Validate it in Python, "
            "next to its module: kdedge_export.validate."
        )
    if origin.get("weights") is None:
        raise UsageError(
            f"{path} was exported with random weights, which cannot be reproduced for comparison. "
            "Export it with trained weights, or from a run."
        )
    if weights is not None and "model" in lineage:
        raise UsageError(f"{path} was exported from a run, which has its own weights. Remove --weights {weights}.")
    if run is not None:
        trained = load_trained(run)
    elif "model" in lineage:
        raise UsageError(
            f"{path} was exported from the run {origin['source']}, but is not in its folder. Validate the run itself: "
            f"kdedge validate {origin['source']}"
        )
    else:
        name = _network(path, origin, model)
        zero_shot = ZeroShot.of(labels, origin["prompts"]) if "prompts" in origin else None
        trained = load_trained(name, weights=_weights_file(path, origin, weights), zero_shot=zero_shot)
    if trained.origin["weights_sha256"] != origin["weights_sha256"]:
        or_named = "" if run is not None else ", or give the original weights: --weights FILE"
        raise UsageError(
            f"{path} was exported from weights that differ from those in {trained.origin['weights']}. Export it "
            f"again{or_named}."
        )
    return trained


def _network(path: Path, origin: dict[str, Any], model: str | None) -> str:
    """Return the model name of a file; for a model from a Python file, the name given on the command line.

    Raises:
        UsageError: the name is missing, is not needed, or refers to a different Python file.
    """
    recorded = str(origin["source"])
    if not is_factory(recorded):
        if model is not None:
            raise UsageError(
                f"{path} was exported from {recorded}, which needs no Python file. Remove --model {model}."
            )
        return recorded
    if model is None:
        raise UsageError(
            f"{path} was exported from {recorded}. Code named by a model file is never executed: give the function "
            "explicitly with --model FILE.py:FUNCTION."
        )
    found = code_sha256(model)
    if found != origin.get("code_sha256"):
        raise UsageError(
            f"{path} was exported from a different {recorded} than {model}: its SHA-256 is {found[:12]}…, expected "
            f"{str(origin.get('code_sha256'))[:12]}…."
        )
    allow_typed(model)
    return model


def _weights_file(path: Path, origin: dict[str, Any], weights: Path | None) -> Path | None:
    """Return the weights a model file was exported from: the given file, or one with the recorded name nearby.

    None stands for the published weights of the recorded network.
    """
    if weights is not None or "url" in origin:
        return weights
    name = origin["weights"]
    nearby = [file for file in (path.parent / name, Path(name)) if file.is_file()]
    if not nearby:
        raise UsageError(
            f"{path} was exported from the weights {name}, which are neither next to it nor in the current folder. "
            "Give their location: --weights FILE."
        )
    return nearby[0]


def _require_one_size(spec: InputSpec, *files: Model) -> None:
    for file in files:
        if file.metadata.input.shape != spec.shape:
            raise UsageError(
                f"{file.path} takes {file.metadata.input.summary}, but its model takes {spec.summary}. Export it again."
            )

"""Files that a validation is about, and the PyTorch model that they came from, if any."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge.models.code_trust import allow_typed
from kdedge.models.custom import code_sha256
from kdedge.models.custom_path import is_factory
from kdedge.models.run_folder import RunRecord, is_run, read_run
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.pipelines.model_files import fp32_file
from kdedge_runtime import Model
from kdedge_runtime.errors import UsageError
from kdedge_runtime.metadata import ImageInput

__all__ = ["ExportedFiles", "open_files"]


@dataclass(frozen=True)
class ExportedFiles:
    """Files of one model, and the model."""

    fp32: Model
    int8: Model | None
    student: TrainedModel | None
    """PyTorch model with the exported weights; None for a file of another framework."""
    run: Path | None
    """The run folder that holds them; None for a model by name."""
    record: RunRecord | None
    """Of that run."""

    @property
    def input(self) -> ImageInput:
        """The input that the student was trained with; the fp32 file's where there is no student."""
        return self.fp32.metadata.input if self.student is None else self.student.input


def open_files(source: str, weights: Path | None = None, model: str | None = None) -> ExportedFiles:
    """Open the exported files of a run, or one model file and the int8 one beside it.

    Args:
        source: a run folder with exported files, a file in one, or a `.onnx` file from a model by name or of
            another framework.
        weights: of a file from a model by name, the weights that it was exported from; None looks for them by their
            name, beside the file and in the current folder.
        model: of a file that was exported from a Python file's network, that network; the name in the model file is
            never loaded.

    Raises:
        UsageError: there is no file with a map, the two differ, or its weights are not found or are others.
    """
    fp32_path = fp32_file(source)
    fp32 = Model.load(fp32_path)
    if fp32.metadata.quantization is not None:
        raise UsageError(f"{fp32_path} is quantized. Name the fp32 file: the int8 one beside it is validated with it.")
    int8_path = fp32_path.with_suffix(".int8.onnx")
    int8 = Model.load(int8_path, exact_int8=True) if int8_path.is_file() else None
    lineage = fp32.metadata.lineage
    run = fp32_path.parent if "model" in lineage and is_run(fp32_path.parent) else None
    student = _same_weights(run, fp32_path, lineage, weights, model)
    spec = fp32.metadata.input if student is None else student.input
    if int8 is not None and int8.metadata.lineage != lineage:
        raise UsageError(f"{int8_path} was exported from another model than {fp32_path}. Export both again.")
    if int8 is not None and not int8.metadata.outputs.explains_like(fp32.metadata.outputs):
        raise UsageError(
            f"{int8_path} was exported with another --method or --target-layer than {fp32_path}. Export both again."
        )
    if not fp32.has_map:
        raise UsageError(f"{fp32_path} was exported with --method none and has no map to validate.")
    _require_one_size((spec.height, spec.width), fp32, int8)
    return ExportedFiles(fp32, int8, student, run, None if run is None else read_run(run))


def _same_weights(
    run: Path | None, path: Path, lineage: dict[str, Any], weights: Path | None, model: str | None
) -> TrainedModel | None:
    """Load the PyTorch model that a file was exported from: of the run that holds the file, or by name.

    None for a file of another framework.
    """
    if "file" in lineage:
        for option, value in (("--weights", weights), ("--model", model)):
            if value is not None:
                made_of = lineage["file"]["name"]
                raise UsageError(f"{path} was made of {made_of}, not of a PyTorch model. Leave {option} {value} out.")
        return None
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
        name = _network(path, origin, model)
        trained = load_trained(name, weights=_weights_file(path, origin["weights"], weights))
    if trained.origin["weights_sha256"] != origin["weights_sha256"]:
        or_named = "" if run is not None else ", or name the file that it was made of: --weights FILE"
        raise UsageError(
            f"{path} was exported from other weights than {trained.origin['weights']} holds. Export it again{or_named}."
        )
    return trained


def _network(path: Path, origin: dict[str, Any], model: str | None) -> str:
    """Return the name of a file's network; of a Python file's, the one that the user typed.

    Raises:
        UsageError: the user typed none, typed one for nothing, or its file is another one.
    """
    recorded = str(origin["source"])
    if not is_factory(recorded):
        if model is not None:
            raise UsageError(f"{path} was exported from {recorded}, which needs no file. Leave --model {model} out.")
        return recorded
    if model is None:
        raise UsageError(
            f"{path} was exported from the network {recorded}. Code that a model file names is never run: type the "
            "network yourself, --model FILE.py:FUNCTION."
        )
    found = code_sha256(model)
    if found != origin.get("code_sha256"):
        raise UsageError(
            f"{path} was exported from another {recorded} than {model}: its SHA-256 is {found[:12]}…, expected "
            f"{str(origin.get('code_sha256'))[:12]}…."
        )
    allow_typed(model)
    return model


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


def _require_one_size(size: tuple[int, int], *files: Model | None) -> None:
    for file in files:
        if file is not None and (file.metadata.input.height, file.metadata.input.width) != size:
            spec = file.metadata.input
            raise UsageError(
                f"{file.path} takes {spec.width} × {spec.height} px, and its model takes "
                f"{size[1]} × {size[0]}. Export it again."
            )

"""From a run or a named model to model files."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kdedge.data.dataset_index import source_name
from kdedge.models.code_trust import allow_typed
from kdedge.models.run_folder import is_run, read_run
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.pipelines.calibration_images import calibration_pictures
from kdedge.pipelines.export_check import check_against_torch
from kdedge.pipelines.qat import fine_tune
from kdedge.pipelines.temperature_fit import Fit, fit_run
from kdedge_export.metrics.map_displacement import measure_display
from kdedge_export.metrics.torch_predictions import at_once
from kdedge_export.quantize import Goal, Quantized, Recipe, Tradeoff, TradeoffPoint, quantize
from kdedge_export.quantize.calibration_ranges import Range
from kdedge_export.quantize.qat_scales import rounded_by
from kdedge_export.torch_export import Deployed, ExportedGraph, Plain, deploy, export_graph, save_model
from kdedge_runtime import Metadata, Model
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.util.files import staged

__all__ = ["ExportResult", "Progress", "export_model"]

_SHARED = ("labels", "input", "lineage", "temperature")
"""Fields that are equal in the metadata of an fp32 file and of the int8 file made of it, besides its outputs."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is."""


@dataclass(frozen=True)
class ExportResult:
    """The files that were written and what is known of them."""

    fp32: Path
    metadata: Metadata
    logits_error: float
    """Largest error against PyTorch over two inputs, relative to the range."""
    map_error: float | None
    assumed_input: str | None = None
    """What was assumed of the input that the weights want, where they do not tell."""
    fit: Fit | None = None
    """Of the temperature; None for a model without a run."""
    int8: Path | None = None
    """None where it was not asked for, or where the goal is missed."""
    removed: Path | None = None
    """The int8 file of an earlier export, where it was of another model, or where the goal is missed."""
    int8_note: dict[str, Any] | None = None
    """What the int8 file's metadata says of its quantization."""
    tradeoff: Tradeoff | None = None
    """What was tried to keep the goal."""
    qat_needless: bool = False
    """Whether training with int8's errors was asked for and left out, since the goal is kept without it."""
    problems: str | None = None
    """What is wrong with the calibration pictures, if anything."""


def export_model(
    source: str,
    *,
    weights: Path | None = None,
    output: Path | None = None,
    method: str | None = None,
    target_layer: str | None = None,
    with_int8: bool = False,
    goal: Goal | None = None,
    with_qat: bool = False,
    data: str | None = None,
    profile: DeviceProfile,
    progress: Progress = lambda *_: None,
) -> ExportResult:
    """Write the fp32 model file and, if asked for, the int8 one beside it (`model.onnx`, `model.int8.onnx`).

    An int8 file of an earlier export is removed where it is of another model than the new fp32 file, and where the new
    one misses the goal: whoever asks for a goal must not find a file beside the model that was never held against it.

    Args:
        source: a run folder, or a model's name.
        weights: for a name, its trained weights.
        output: the fp32 file; None writes into the run folder, or names the file after the model.
        method: how the graph explains, one of `kdedge_export.saliency.METHODS`, or `none`; None takes the default of
            the head.
        target_layer: module path of the layer whose activations the map shows; None finds it.
        with_int8: whether to quantize.
        goal: what quantization must keep; None takes plain int8 as it is.
        with_qat: whether to train the student of a run on with int8's errors, where quantization alone misses the goal
            (or there is none), and to take that if it keeps more.
        data: pictures to calibrate on; None takes the run's training set.
        profile: the device that the int8 file is for.
        progress: told while long steps go on.

    Raises:
        HeadNotSupported: the model does not allow this method.
        GraphNotSupported: PyTorch cannot write it as a graph.
        UsageError: there are no calibration images, the source is unusable, or no run where one is needed.
        KdedgeError: the exported graph does not compute what PyTorch computes, or rounding hides whether it does.
    """
    if with_qat and not is_run(Path(source)):
        raise UsageError(
            f"--qat trains a run's student on, and {source} is not a run folder. Name one, or leave --qat out."
        )
    allow_typed(source)
    trained = load_trained(source, weights=weights)
    explained = method != "none"
    if not explained and target_layer is not None:
        raise UsageError(f"--method none gives no map. Leave --target-layer {target_layer} out.")
    output = output or _default_output(source, trained, explained)
    if output.suffix != ".onnx":
        raise UsageError(f"The model file must end in .onnx, got {output}.")
    if with_int8:
        pictures = calibration_pictures(source, trained, data, progress)
    progress("exporting", 0, 1)

    def as_deployed(model: TrainedModel) -> Deployed | Plain:
        if not explained:
            return Plain(model.model.eval(), model.input)
        return deploy(model.model, model.input, method, target_layer)

    module = as_deployed(trained)
    metadata = Metadata(
        labels=trained.labels,
        input=trained.input,
        outputs=module.outputs,
        lineage=_lineage(source, trained),
        metrics=_run_metrics(source),
    )
    graph = export_graph(module)
    with staged(output) as temporary:  # a file that fails the check does not replace one that passed it
        written = metadata
        save_model(graph.model, written, temporary)
        model = Model.load(temporary)
        logits_error, map_error = check_against_torch(module, model)
        fit = fit_run(source, model)
        if fit is not None and fit.images:
            noted = metadata.metrics | {"temperature_images": fit.images}
            metadata = replace(metadata, temperature=fit.temperature, metrics=noted)
        if explained:
            display = measure_display(model, at_once=at_once(model))
            metadata = replace(metadata, outputs=replace(metadata.outputs, display=display))
        if metadata is not written:  # a plain graph of a model by name has nothing to add
            save_model(graph.model, metadata, temporary)
    progress("exporting", 1, 1)
    int8_path = output.with_suffix(".int8.onnx")
    removed = _removed(int8_path) if _is_of_another_model(int8_path, metadata) else None
    result = ExportResult(
        output, metadata, logits_error, map_error, assumed_input=trained.assumed_input, fit=fit, removed=removed
    )
    if not with_int8:
        return result
    recipe = Recipe(profile.quantization.reduce_range, profile.quantization.activations)

    def quantized_from(source_graph: ExportedGraph, trained_in: Mapping[str, Range] | None = None) -> Quantized:
        return quantize(
            source_graph,
            pictures.calibration,
            pictures.held_out,
            recipe,
            targets=pictures.targets,
            goal=goal,
            reference=graph.model,
            trained_in=trained_in,
            progress=progress,
        )

    quantized = quantized_from(graph)
    qat_needless = with_qat and goal not in (None, Goal()) and quantized.tradeoff.met
    if with_qat and not qat_needless:
        tuned, training = fine_tune(
            Path(source),
            rounded_by(quantized, graph, recipe, pictures.calibration[:1]),
            aside=pictures.held_out_samples,
            progress=progress,
        )
        trained_on = quantized_from(export_graph(as_deployed(tuned)), quantized.ranges)
        quantized = _better(quantized, trained_on, training)
    note = quantized.note | {"device": profile.name}
    result = replace(result, int8_note=note, tradeoff=quantized.tradeoff, problems=pictures.problems)
    result = replace(result, qat_needless=qat_needless)
    if not quantized.tradeoff.met:
        return replace(result, removed=removed or _removed(int8_path))
    save_model(quantized.model, replace(metadata, quantization=note), int8_path)
    return replace(result, int8=int8_path)


def _better(plain: Quantized, trained_on: Quantized, training: dict[str, Any]) -> Quantized:
    """Whichever keeps more of what the float student says, with a note of the training and what came of it."""
    before, after = plain.tradeoff.chosen, trained_on.tradeoff.chosen
    taken = (trained_on.tradeoff.met, -after.fidelity.loss) > (plain.tradeoff.met, -before.fidelity.loss)
    chosen = trained_on if taken else plain
    note = training | {"before": _told(before), "after": _told(after), "taken": taken}
    return replace(chosen, note=chosen.note | {"qat": note})


def _told(point: TradeoffPoint) -> dict[str, Any]:
    """What a file keeps on held-out images, and with how many layers in float."""
    return point.fidelity.to_dict() | {"float_layers": len(point.float_layers)}


def _is_of_another_model(path: Path, metadata: Metadata) -> bool:
    """Return whether an int8 file exists that was made of another model or explains in another way."""
    if not path.is_file():
        return False
    try:
        found = Model.load(path).metadata
    except KdedgeError:
        return True
    written = Metadata.from_props(metadata.to_props())  # with lists for tuples, as in a file
    is_alike = all(getattr(found, name) == getattr(written, name) for name in _SHARED)
    return not (is_alike and found.outputs.explains_like(written.outputs))


def _removed(path: Path) -> Path | None:
    """Remove a file; None where there was none."""
    if not path.is_file():
        return None
    path.unlink()
    return path


def _default_output(source: str, trained: TrainedModel, explained: bool) -> Path:
    stem = "model" if explained else "model.plain"
    if is_run(Path(source)):
        return Path(source) / f"{stem}.onnx"
    return Path(trained.spec.name.rpartition(":")[2] + (".onnx" if explained else ".plain.onnx"))


def _lineage(source: str, trained: TrainedModel) -> dict[str, Any]:
    """Where the model comes from, by names and hashes, since the file travels and the paths do not."""
    weights = trained.origin["weights"]
    student = trained.origin | {"weights": None if weights is None else Path(weights).name}
    if not is_run(Path(source)):
        return {"student": student}
    record = read_run(Path(source))
    data = {"name": source_name(record.data["source"]), **record.data}
    del data["source"]  # a path
    return {
        "student": student | {"source": Path(source).resolve().name},
        "teacher": None if record.teacher is None else _taught_by(record.teacher),
        "data": data,
        "model": asdict(replace(record.model, name=Path(record.model.name).name)),
    }


def _taught_by(teacher: dict[str, Any]) -> dict[str, Any]:
    """The name of a run's teacher and the hash of its weights; of several, which have none in common, all names."""
    names = [Path(member["source"]).name for member in teacher.get("members", [teacher])]
    return {"name": " + ".join(names), "weights_sha256": teacher.get("weights_sha256")}


def _run_metrics(source: str) -> dict[str, Any]:
    """The validation figures of the exported epoch, the best one, and of what they are: of no exported file."""
    record = read_run(Path(source)) if is_run(Path(source)) else None
    if record is None or record.result is None:
        return {}
    best = record.result["best"]
    figures = {key: _legible(value) for key, value in best.items() if key.startswith("val_") or key == "epoch"}
    return {"measured_on": f"the PyTorch model, {record.data['val']} validation images"} | figures


def _legible(value: float) -> float:
    """Six decimals of a figure that was computed in float32: the others are noise."""
    return round(value, 6) if isinstance(value, float) else value

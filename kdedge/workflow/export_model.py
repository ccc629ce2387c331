"""From a run or a named model to model files."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdedge.data import Decoded, decode, scan
from kdedge.data.collection import source_name
from kdedge.models.run_folder import is_run, read_run
from kdedge.models.trained import TrainedModel, load_trained
from kdedge.workflow.speed import latency_ms
from kdedge_export.graph import Deployed, Plain, deploy, export_graph, save_model
from kdedge_export.quantize import Recipe, quantize
from kdedge_export.saliency import DEFAULT_METHOD
from kdedge_runtime import Metadata, Model
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.files import staged
from kdedge_runtime.metadata import ImageInput

__all__ = ["ExportResult", "Progress", "export_model"]

TOLERANCE = 1e-4
"""Largest error of logits and maps against PyTorch, relative to their range: float32 sums in another order."""
CALIBRATION_IMAGES = 256
"""At most; activation ranges of more differ little."""
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
    int8: Path | None = None
    latency_ms: tuple[float, float] | None = None
    """Median latency of fp32 and int8 on this machine, one image, one thread, measured in turn."""
    problems: str | None = None
    """What is wrong with the calibration pictures, if anything."""


def export_model(
    source: str,
    *,
    weights: Path | None = None,
    output: Path | None = None,
    method: str = DEFAULT_METHOD,
    target_layer: str | None = None,
    with_int8: bool = False,
    data: str | None = None,
    profile: DeviceProfile,
    progress: Progress = lambda *_: None,
) -> ExportResult:
    """Write the fp32 model file and, if asked for, the int8 one beside it (`model.onnx`, `model.int8.onnx`).

    Args:
        source: a run folder, or a model's name.
        weights: for a name, its trained weights.
        output: the fp32 file; None writes into the run folder, or names the file after the model.
        method: how the graph explains, one of `kdedge_export.saliency.METHODS`, or `none`.
        target_layer: module path of the layer whose activations the map shows; None finds it.
        with_int8: whether to quantize.
        data: pictures to calibrate on; None takes the run's training set.
        profile: the device that the int8 file is for.
        progress: told while long steps go on.

    Raises:
        HeadNotSupported: the model does not allow this method.
        UsageError: there are no calibration images, or the source is unusable.
        KdedgeError: the exported graph does not compute what PyTorch computes.
    """
    trained = load_trained(source, weights=weights)
    explained = method != "none"
    if not explained and target_layer is not None:
        raise UsageError(f"--method none gives no map. Leave --target-layer {target_layer} out.")
    output = output or _default_output(source, trained, explained)
    if output.suffix != ".onnx":
        raise UsageError(f"The model file must end in .onnx, got {output}.")
    if with_int8:
        decoded = _calibration_images(source, trained.input, data, progress)
        calibration = decoded.images
    progress("exporting", 0, 1)
    module: Deployed | Plain = Plain(trained.model.eval(), trained.input)
    if explained:
        module = deploy(trained.model, trained.input, method, target_layer)
    metadata = Metadata(
        labels=trained.labels,
        input=trained.input,
        outputs=module.outputs,
        lineage=_lineage(source, trained),
        metrics=_run_metrics(source),
    )
    graph = export_graph(module)
    with staged(output) as temporary:  # a file that fails the check does not replace one that passed it
        save_model(graph.model, metadata, temporary)
        logits_error, map_error = _check_against_torch(module, Model.load(temporary))
    progress("exporting", 1, 1)
    result = ExportResult(output, metadata, logits_error, map_error)
    if not with_int8:
        return result
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        progress("calibrating", done, len(calibration))

    quantized, note = quantize(graph, calibration, Recipe(profile.reduce_range), count)
    int8_path = output.with_suffix(".int8.onnx")
    save_model(quantized, replace(metadata, quantization=note | {"device": profile.name}), int8_path)
    first, second = (Model.load(path, threads=1) for path in (output, int8_path))
    fp32_ms, int8_ms = latency_ms(lambda: first.predict(calibration[:1]), lambda: second.predict(calibration[:1]))
    problems = str(decoded.problems) if decoded.problems else None
    return replace(result, int8=int8_path, latency_ms=(fp32_ms, int8_ms), problems=problems)


def _default_output(source: str, trained: TrainedModel, explained: bool) -> Path:
    stem = "model" if explained else "model.plain"
    if is_run(Path(source)):
        return Path(source) / f"{stem}.onnx"
    return Path(trained.spec.name.rpartition(":")[2] + (".onnx" if explained else ".plain.onnx"))


def _lineage(source: str, trained: TrainedModel) -> dict[str, Any]:
    """Where the model comes from; of a run by names and hashes, since the file travels and the paths do not."""
    if not is_run(Path(source)):
        return {"student": trained.origin}
    record = read_run(Path(source))
    data = {"name": source_name(record.data["source"]), **record.data}
    del data["source"]  # a path
    teacher = record.teacher and {
        "name": Path(record.teacher["source"]).name,
        "weights_sha256": record.teacher.get("weights_sha256"),
    }
    student = {
        "source": Path(source).resolve().name,
        "weights": Path(trained.origin["weights"]).name,
        "weights_sha256": trained.origin["weights_sha256"],
    }
    return {
        "student": student,
        "teacher": teacher,
        "data": data,
        "model": asdict(replace(record.model, name=Path(record.model.name).name)),
    }


def _run_metrics(source: str) -> dict[str, Any]:
    """The validation figures of the exported epoch, the best one."""
    record = read_run(Path(source)) if is_run(Path(source)) else None
    best = record.result["best"] if record is not None and record.result is not None else {}
    return {key: value for key, value in best.items() if key.startswith("val_") or key == "epoch"}


def _calibration_images(source: str, spec: ImageInput, data: str | None, progress: Progress) -> Decoded:
    """Evenly spaced training images; never those that the model is validated on."""
    if data is None and not is_run(Path(source)):
        raise UsageError(
            "Quantization needs pictures to calibrate on, and a model without a run has none. "
            "Name a folder of pictures such as the model will see: --data DIR."
        )
    split = scan(data or read_run(Path(source)).data["source"], unlabelled_ok=True).train
    count = min(len(split), CALIBRATION_IMAGES)
    chosen = split.take(index * len(split) // count for index in range(count))  # folders are sorted by class
    return decode(chosen, spec, progress=lambda done, total: progress("reading pictures", done, total))


def _check_against_torch(module: Deployed | Plain, model: Model) -> tuple[float, float | None]:
    """Run both on two different batches, of one and of three images: exported constants would show."""
    spec, generator = module.spec, np.random.default_rng(0)
    logits_errors, map_errors = [], [0.0]
    for count in (1, 3):
        images = generator.integers(0, 256, (count, spec.height, spec.width, 3), dtype=np.uint8)
        explanation = model.predict(images)
        with torch.no_grad():
            if isinstance(module, Plain):
                logits = module(torch.from_numpy(images))
            else:
                classes = torch.from_numpy(explanation.explained_class)
                logits, maps, _ = module(torch.from_numpy(images), classes)
                assert explanation.saliency_map is not None
                map_errors.append(_relative_error(explanation.saliency_map, maps.numpy()))
        logits_errors.append(_relative_error(explanation.logits, logits.numpy()))
    logits_error, map_error = float(np.max(logits_errors)), float(np.max(map_errors))
    if not (logits_error <= TOLERANCE and map_error <= TOLERANCE):  # so that a NaN does not pass
        raise KdedgeError(
            f"The exported graph does not compute what PyTorch computes: relative error {logits_error:.1e} of the "
            f"logits and {map_error:.1e} of the map, expected at most {TOLERANCE:.0e}. Please report this model."
        )
    return logits_error, None if isinstance(module, Plain) else map_error


def _relative_error(measured: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    return float(np.abs(measured - expected).max() / max(float(np.ptp(expected)), 1e-12))

"""From any classifier in an `.onnx` file to one that also gives its saliency map."""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge_export.errors import HeadNotSupported
from kdedge_export.surgery.anatomy import Anatomy, dissect
from kdedge_export.surgery.builder import Builder
from kdedge_export.surgery.check import check_other_size, check_outputs
from kdedge_export.surgery.front import PixelInput, add_logits, image_input, put_front
from kdedge_export.surgery.labels import labels_of_props
from kdedge_export.surgery.load import load_file
from kdedge_export.surgery.map_check import CONFIRMED, check_map
from kdedge_export.surgery.saliency import RECIPROCAM, TOP_CLASS, Method, Saliency, add_saliency
from kdedge_export.surgery.view import GraphView
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.files import file_sha256, staged
from kdedge_runtime.golden import record
from kdedge_runtime.metadata import ImageInput, Metadata, Outputs

__all__ = ["ExplainedFile", "explain_file"]

_OUTPUTS = "kdedge.outputs"
"""The key of `metadata_props` that says how the map is computed; files without a front have no other."""


@dataclass(frozen=True)
class ExplainedFile:
    """The file that was written, and what is known of it."""

    path: Path
    outputs: Outputs
    """How the map is computed."""
    was_explained: bool
    """The file gave its map before: it was copied, byte for byte."""
    metadata: Metadata | None = None
    """None where pictures cannot become its input, because nobody said how: `kdedge run` refuses such a file."""
    labels_are_numbers: bool = False
    output_error: float = 0.0
    """Largest difference of the file's own outputs, relative to their range; 0 is bit for bit."""
    map_error: float | None = None
    """Relative error of the map as it was measured in another way; None where the file had it before."""
    why_not_gradcam: str | None = None
    """The operator that has no derivative here, where ReciproCAM is the fallback."""

    @property
    def is_map_confirmed(self) -> bool:
        """Whether the logits confirm the map: above a relative error of 1e-3 they are too coarse to."""
        return self.map_error is not None and self.map_error <= CONFIRMED


def explain_file(
    source: Path,
    output: Path,
    *,
    target: str | None = None,
    method: Method | None = None,
    pixels: PixelInput | None = None,
    labels: tuple[str, ...] | None = None,
    side_px: int | None = None,
) -> ExplainedFile:
    """Add outputs `saliency_map` and `explained_class` and the optional input `class_index` to a classifier.

    The file's own inputs and outputs stay as they are, unless `pixels` says how pictures become its input: then
    that input is replaced by `image`, uint8 RGB `[N, H, W, 3]`, and the file is one that `kdedge run` takes. Both
    graphs are run on random pictures before anything is written.

    Args:
        source: the `.onnx` file; weights that it keeps in other files must lie beside it.
        output: the file to write.
        target: the tensor that the map looks at; None takes the last map of features that has weights after it.
        method: None takes Grad-CAM where the graph behind the target can be differentiated, else ReciproCAM.
        pixels: how pixels become the graph's input.
        labels: class names; None takes those in the file's metadata, else numbers.
        side_px: side of the input where the graph leaves it open.

    Raises:
        ModelFileError: the file is damaged or no image classifier.
        HeadNotSupported: its map cannot be had; the message says why.
        UsageError: what was asked for does not fit the file.
        KdedgeError: the new graph does not compute what the old one does.
    """
    if output.resolve() == source.resolve():
        raise UsageError(f"{output} is the file to explain, and would be overwritten. Name another one: -o FILE.")
    original = load_file(source)
    props = {item.key: item.value for item in original.metadata_props}
    had_map = _has_map(original, props, source)
    _require_use(source, props, had_map, target or method, pixels, labels, side_px)
    if "kdedge.schema" in props or (had_map and pixels is None):
        return _copied(source, output, props)
    view = GraphView(original)
    looked_at = Outputs(**json.loads(props[_OUTPUTS])).target_layer if had_map else target

    def find(is_cut: bool) -> Anatomy:
        return dissect(view, str(source), target=looked_at, side_px=side_px, is_cut=is_cut)

    model, builder = onnx.ModelProto(), Builder(view)
    model.CopyFrom(original)
    saliency = None if had_map else add_saliency(builder, view, find, method)
    parts = find(False) if saliency is None else saliency.parts
    if side_px is not None and parts.port.has_size and parts.port.size != (side_px, side_px):
        height, width = parts.port.size
        raise UsageError(f"{source} takes pictures of {width} × {height} px and no others. Leave --size out.")
    map_error, why_not_gradcam = None, None
    if saliency is None:
        outputs = Outputs(**json.loads(props[_OUTPUTS]))
    else:
        builder.write(model)
        _declare(model, parts)
        map_error = _checked_map(original, model, parts, saliency, source, side_px)
        if pixels is None:
            check_other_size(original, model, parts, str(source), side_px)
        outputs, why_not_gradcam = _outputs(parts, saliency), saliency.why_not_gradcam
    spec = _runnable_input(model, builder, parts, pixels, side_px, str(source))
    metadata = None
    if spec is not None:
        height, width = parts.cells  # of a picture of this size, also where the graph leaves it open
        outputs = replace(outputs, map_height=height, map_width=width)
        names = labels or labels_of_props(props) or _numbers(parts.classes)
        _require_fit(names, parts.classes, str(source))
        metadata = Metadata(
            names, spec, outputs, lineage={"file": {"name": source.name, "sha256": file_sha256(source)}}
        )
    elif labels is not None:
        raise UsageError("Labels go into a file that kdedge can run. Say how pixels become its input: --mean, --std.")
    entries = {_OUTPUTS: json.dumps(asdict(outputs))} if metadata is None else metadata.to_props()
    helper.set_model_props(model, props | entries)
    front = None if pixels is None or spec is None else (pixels, spec)
    output_error = check_outputs(original, model, parts, str(source), side_px, front)
    onnx.checker.check_model(model)
    with staged(output) as temporary:
        onnx.save_model(model, temporary)
        if metadata is not None:  # one that `kdedge-run --self-test` can hold against itself
            metadata = replace(metadata, golden=record(temporary))
            helper.set_model_props(model, props | metadata.to_props())
            onnx.save_model(model, temporary)
    return ExplainedFile(
        path=output,
        outputs=outputs,
        was_explained=False,
        metadata=metadata,
        labels_are_numbers=metadata is not None and metadata.labels == _numbers(parts.classes),
        output_error=output_error,
        map_error=map_error,
        why_not_gradcam=why_not_gradcam,
    )


def _require_use(
    source: Path,
    props: dict[str, str],
    had_map: bool,
    map_option: str | None,
    pixels: PixelInput | None,
    labels: tuple[str, ...] | None,
    side_px: int | None,
) -> None:
    """Refuse what would be ignored, because the file has it already."""
    if had_map and map_option is not None:
        raise UsageError(
            f"{source} has a map already. Leave --target-layer and --method out, or explain the file it was made of."
        )
    given = {"--labels": labels, "--size": side_px, "--mean": pixels, "--std": pixels}
    useless = _listed([option for option, value in given.items() if value is not None])
    if "kdedge.schema" in props and useless:
        raise UsageError(
            f"{source} is a kdedge model already, with labels and an input of its own. Leave {useless} out."
        )
    if had_map and pixels is None and useless:
        raise UsageError(
            f"{source} has a map already and would be copied as it is. Leave {useless} out, or say how pixels become "
            "its input too: --mean, --std."
        )


def _listed(options: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(options[:-1]), *options[-1:])))


def _copied(source: Path, output: Path, props: dict[str, str]) -> ExplainedFile:
    with staged(output) as temporary:
        shutil.copyfile(source, temporary)
    metadata = Metadata.from_props(props) if "kdedge.schema" in props else None
    return ExplainedFile(output, Outputs(**json.loads(props[_OUTPUTS])), was_explained=True, metadata=metadata)


def _checked_map(
    original: onnx.ModelProto,
    model: onnx.ModelProto,
    parts: Anatomy,
    saliency: Saliency,
    source: Path,
    side_px: int | None,
) -> float:
    try:
        return check_map(original, model, parts, saliency, str(source), side_px)
    except ModelFileError as error:
        if saliency.method != RECIPROCAM:
            raise HeadNotSupported(
                f"{source}: the graph with its {saliency.method} map does not run: {error} Please report this model, "
                f"and use --method {RECIPROCAM} until then."
            ) from error
        raise HeadNotSupported(
            f"{source}: what comes after {parts.target} does not run on one cell at a time ({error}) "
            "Name a later tensor: --target-layer TENSOR."
        ) from error


def _has_map(model: onnx.ModelProto, props: dict[str, str], source: Path) -> bool:
    outputs = {value.name for value in model.graph.output}
    if _OUTPUTS in props and {"saliency_map", "explained_class"} <= outputs:
        return True
    taken = outputs | {value.name for value in model.graph.input}
    taken |= {name for node in model.graph.node for name in node.output}
    clash = sorted(taken & {"saliency_map", "explained_class", "class_index"})
    if clash:
        raise ModelFileError(
            f"{source} has a tensor {clash[0]} already, which kdedge did not write. "
            "Rename it, or export the model again."
        )
    if _OUTPUTS in props:
        raise ModelFileError(
            f"{source} was exported by kdedge with --method none. Export its source again without that option."
        )
    return False


def _declare(model: onnx.ModelProto, parts: Anatomy) -> None:
    """List the new input with its default, and the new outputs with their types."""
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("class_index", TensorProto.INT64, [1]))
    graph.initializer.append(numpy_helper.from_array(np.array([TOP_CLASS], dtype=np.int64), "class_index"))
    (own,) = (value for value in graph.input if value.name == parts.port.name)
    height, width = parts.cells if parts.has_fixed_size else ("map_height", "map_width")
    for name, kind, inner in (
        ("saliency_map", TensorProto.FLOAT, [height, width]),
        ("explained_class", TensorProto.INT64, []),
    ):
        value = helper.make_tensor_value_info(name, kind, [None, *inner])
        value.type.tensor_type.shape.dim[0].CopyFrom(own.type.tensor_type.shape.dim[0])
        graph.output.append(value)


def _outputs(parts: Anatomy, saliency: Saliency) -> Outputs:
    height, width = parts.cells if parts.has_fixed_size else (None, None)
    return Outputs(saliency.method, parts.target, parts.head, height, width)


def _runnable_input(
    model: onnx.ModelProto,
    builder: Builder,
    parts: Anatomy,
    pixels: PixelInput | None,
    side_px: int | None,
    name: str,
) -> ImageInput | None:
    """How pictures become the file's input, once a front is in place; None where nobody knows."""
    port = parts.port
    is_ready = port.dtype == np.uint8 and port.layout == "NHWC"
    if is_ready and pixels is not None:
        raise UsageError(f"{name} takes raw pixels and normalises them itself. Leave --mean and --std out.")
    if is_ready and (port.has_size or side_px is not None):
        spec = image_input(port, PixelInput((0.0,) * 3, (1.0,) * 3), side_px, name)
        add_logits(model, builder, parts)
        spec = replace(spec, name=port.name)
    elif pixels is not None:
        spec = image_input(port, pixels, side_px, name)
        put_front(model, builder, parts, pixels, spec)
    else:
        return None
    builder.write(model)
    return spec


def _numbers(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))


def _require_fit(labels: tuple[str, ...], classes: int, name: str) -> None:
    if len(labels) != classes:
        raise UsageError(
            f"There are {len(labels)} labels ({labels[0]}, …, {labels[-1]}) and {name} tells {classes} classes apart. "
            "Give one label a class, in the order of its output: --labels FILE."
        )

"""Conversion of a classifier in an `.onnx` file to one that also returns its saliency map."""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge_export.errors import HeadNotSupported
from kdedge_export.familiarity.graph import add_familiarity_output
from kdedge_export.metrics.map_displacement import measure_display
from kdedge_export.modalities.image import IMAGE
from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.file_metadata import read_metadata
from kdedge_export.onnx_graph.graph_index import GraphIndex
from kdedge_export.onnx_graph.graph_input import find_image_input, make_example_feed
from kdedge_export.onnx_import.classifier_graph import ClassifierGraph, analyze_classifier
from kdedge_export.onnx_import.foreign_file import ForeignFile
from kdedge_export.onnx_import.graph_methods import check_method
from kdedge_export.onnx_import.label_names import labels_of_props
from kdedge_export.onnx_import.logits_output import find_logits, with_two_classes
from kdedge_export.onnx_import.map_check import CONFIRMED, check_map
from kdedge_export.onnx_import.model_loading import load_foreign_model
from kdedge_export.onnx_import.output_check import check_other_size, check_same_outputs
from kdedge_export.onnx_import.preprocessing import Geometry, PixelInput, add_logits, image_input, prepend_preprocessing
from kdedge_export.onnx_import.saliency_nodes import SaliencyNodes, add_saliency_nodes, explained_logits
from kdedge_export.onnx_import.usage_checks import OUTPUTS, check_batch, check_input_fits, check_options_used, has_map
from kdedge_runtime import Model
from kdedge_runtime.diagnostics.reference_frames import record_reference_frames
from kdedge_runtime.drawing.heatmap import MapDisplay
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.familiarity import Familiarity
from kdedge_runtime.metadata import TOP_CLASS, Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput, require_image
from kdedge_runtime.saliency_methods import RECIPROCAM
from kdedge_runtime.util.files import atomic_path

__all__ = ["ExplainedFile", "add_saliency"]


@dataclass(frozen=True)
class ExplainedFile:
    """Result of explaining a file."""

    path: Path
    outputs: Outputs
    """Description of the map in the metadata."""
    was_explained: bool
    """True if the file already had a map, and was copied unchanged."""
    metadata: Metadata | None = None
    """Metadata; None without known preprocessing, in which case `kdedge run` cannot run the file."""
    labels_are_numbers: bool = False
    output_error: float = 0.0
    """Largest difference of the file's own outputs relative to their range; 0 is bit-exact."""
    map_error: float | None = None
    """Relative error of the map in the independent verification; None if the file already had a map."""
    no_derivative_of: str | None = None
    """Operator without a derivative, if ReciproCAM is the fallback."""

    @property
    def is_map_confirmed(self) -> bool:
        """True if the map is verified; above a relative error of 5e-3 the logits are too coarse to decide."""
        return self.map_error is not None and self.map_error <= CONFIRMED


def add_saliency(
    source: str | Path,
    output: str | Path,
    *,
    target: str | None = None,
    method: str | None = None,
    pixels: PixelInput | None = None,
    geometry: Geometry | None = None,
    labels: tuple[str, ...] | None = None,
    side_px: int | None = None,
    head: str | None = None,
) -> ExplainedFile:
    """Add outputs `saliency_map` and `explained_class` and the optional input `class_index` to a classifier.

    The file's own inputs and outputs are unchanged, unless `pixels` gives the preprocessing. Its input is then replaced
    by `image`, uint8 RGB `[N, H, W, 3]`, and `kdedge run` can run the file. Both graphs are compared on random images
    before anything is written.

    Args:
        source: the `.onnx` file; external weights must be in the same folder.
        output: the file to write.
        target: the target tensor; None uses the last feature map followed by weights.
        method: saliency method; None uses HiResCAM if the graph after the target is differentiable, else ReciproCAM.
        pixels: conversion from pixels to the graph's input.
        geometry: resizing of images to the input size; None crops the whole shorter side.
        labels: class names; None uses those in the file's metadata, else numbers.
        side_px: input size in pixels, if the graph leaves it dynamic.
        head: the output to explain, if the file has several classification outputs.

    Raises:
        ModelFileError: the file is damaged or not an image classifier.
        HeadNotSupported: the file cannot be explained; the message gives the reason.
        UsageError: the options do not fit the file.
        KdedgeError: the modified graph does not reproduce the original's outputs.
    """
    source, output = Path(source), Path(output)
    if method is not None:
        check_method(method)
    if output.resolve() == source.resolve():
        raise UsageError(f"{output} is the file to explain and would be overwritten. Name another one: -o FILE.")
    file = ForeignFile.open(source)
    original = load_foreign_model(file)
    props = {item.key: item.value for item in original.metadata_props}
    had_map = has_map(original, props, source)
    own = read_metadata(original)
    check_options_used(source, own is not None, had_map, target or method or head, pixels, geometry, labels, side_px)
    if own is not None or (had_map and pixels is None):
        return _copied(source, output, Outputs.from_json(props[OUTPUTS]), own)
    original, logits = _with_logits(original, str(source), had_map, head, side_px)
    view = GraphIndex(original)
    probed = Outputs.from_json(props[OUTPUTS]).target_layer if had_map else target

    def find(is_cut: bool) -> ClassifierGraph:
        return analyze_classifier(view, str(source), logits, target=probed, side_px=side_px, is_cut=is_cut)

    model, builder = onnx.ModelProto(), NodeBuilder(view)
    model.CopyFrom(original)
    saliency = None if had_map else add_saliency_nodes(builder, view, find, method)
    parts = find(False) if saliency is None else saliency.parts
    if side_px is not None and parts.port.has_size and parts.port.size != (side_px, side_px):
        height, width = parts.port.size
        raise UsageError(f"{source} accepts only images of {width} × {height} px. Remove --size.")
    map_error, no_derivative_of = None, None
    if saliency is None:
        outputs = Outputs.from_json(props[OUTPUTS])
    else:
        builder.write(model)
        _declare(model, parts)
        map_error = _checked_map(original, model, parts, saliency, source, side_px)
        if pixels is None:
            check_other_size(original, model, parts, str(source), side_px)
        outputs, no_derivative_of = _outputs(parts, saliency), saliency.no_derivative_of
    spec = _runnable_input(model, builder, parts, pixels, geometry or Geometry(), side_px, str(source))
    metadata = None
    if spec is not None:
        height, width = parts.positions  # at this image size, even if the graph leaves it dynamic
        outputs = replace(outputs, map_height=height, map_width=width)
        names = labels or labels_of_props(props) or _numbers(parts.classes)
        check_input_fits(names, parts.classes, str(source))
        lineage = {"file": {"name": source.name, "sha256": file.sha256}}
        metadata = Metadata(names, spec, outputs, lineage=lineage)
    elif labels is not None or geometry is not None:
        option = "--labels" if geometry is None else "--resize"
        raise UsageError(f"{option} needs a file that kdedge can run. Specify the preprocessing: --mean, --std.")
    if metadata is not None and spec is not None:
        method, _ = add_familiarity_output(model, spec, None, None)
        why_not = "a file of another framework has no known samples: give them with --data DIR"
        metadata = replace(metadata, familiarity=Familiarity(method, why_not=why_not))
    entries = {OUTPUTS: json.dumps(asdict(outputs))} if metadata is None else metadata.to_props()
    helper.set_model_props(model, props | entries)
    front = None if pixels is None or spec is None else (pixels, spec)
    output_error = check_same_outputs(original, model, parts, str(source), side_px, front)
    onnx.checker.check_model(model)
    with atomic_path(output) as temporary:
        onnx.save_model(model, temporary)
        if metadata is not None:
            outputs = replace(outputs, display=_measured_display(Model.load(temporary)))
            # Reference frames allow `kdedge-run self-test` to verify the file.
            metadata = replace(metadata, outputs=outputs, reference_frames=record_reference_frames(temporary))
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
        no_derivative_of=no_derivative_of,
    )


def _with_logits(
    model: onnx.ModelProto, name: str, had_map: bool, head: str | None, side_px: int | None
) -> tuple[onnx.ModelProto, str]:
    """Return the graph with logits of two or more classes, and their tensor."""
    view = GraphIndex(model)
    if had_map:
        logits = explained_logits(view)
        if logits is None:
            raise ModelFileError(f"{name} has a map that kdedge did not write. Explain the file it was made from.")
        return model, logits
    port = find_image_input(view, name)
    check_batch(port, name)
    feed = make_example_feed(port, side_px)
    return with_two_classes(model, find_logits(view, feed, name, head))


def _copied(source: Path, output: Path, outputs: Outputs, metadata: Metadata | None) -> ExplainedFile:
    with atomic_path(output) as temporary:
        shutil.copyfile(source, temporary)
    return ExplainedFile(output, outputs, was_explained=True, metadata=metadata)


def _checked_map(
    original: onnx.ModelProto,
    model: onnx.ModelProto,
    parts: ClassifierGraph,
    saliency: SaliencyNodes,
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
            f"{source}: the layers after {parts.target} cannot be run on masked features ({error}) Name a later "
            "tensor: --target-layer TENSOR."
        ) from error


def _declare(model: onnx.ModelProto, parts: ClassifierGraph) -> None:
    """Declare the new input with its default, and the new outputs with their types."""
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("class_index", TensorProto.INT64, [1]))
    graph.initializer.append(numpy_helper.from_array(np.array([TOP_CLASS], dtype=np.int64), "class_index"))
    (own,) = (value for value in graph.input if value.name == parts.port.name)
    height, width = parts.positions if parts.has_fixed_size else ("map_height", "map_width")
    for name, kind, inner in (
        ("saliency_map", TensorProto.FLOAT, [height, width]),
        ("explained_class", TensorProto.INT64, []),
    ):
        value = helper.make_tensor_value_info(name, kind, [None, *inner])
        value.type.tensor_type.shape.dim[0].CopyFrom(own.type.tensor_type.shape.dim[0])
        graph.output.append(value)


def _outputs(parts: ClassifierGraph, saliency: SaliencyNodes) -> Outputs:
    height, width = parts.positions if parts.has_fixed_size else (None, None)
    return Outputs(saliency.method, parts.target, parts.head, height, width)


def _measured_display(model: Model) -> MapDisplay:
    # ReciproCAM runs the layers after the features once per map position, which is slow.
    is_slow = model.metadata.outputs.method == RECIPROCAM
    # With fewer than 24 samples the result is often unreliable.
    samples = IMAGE.display_samples(require_image(model.metadata.input, model.path), 24 if is_slow else 48)
    return measure_display(model, samples, IMAGE.mirrored_axes, at_once=1 if is_slow else 8)


def _runnable_input(
    model: onnx.ModelProto,
    builder: NodeBuilder,
    parts: ClassifierGraph,
    pixels: PixelInput | None,
    geometry: Geometry,
    side_px: int | None,
    name: str,
) -> ImageInput | None:
    """Describe the file's image input after adding preprocessing; None if the preprocessing is unknown."""
    port = parts.port
    is_ready = port.dtype == np.uint8 and port.layout == "NHWC" and port.channels == 3
    if is_ready and pixels is not None:
        raise UsageError(f"{name} takes raw pixels and normalizes them itself. Remove --mean and --std.")
    if is_ready and (port.has_size or side_px is not None):
        spec = image_input(port, PixelInput((0.0,) * 3, (1.0,) * 3), geometry, side_px, name)
        add_logits(model, builder, parts)
        spec = replace(spec, name=port.name)
    elif pixels is not None:
        spec = image_input(port, pixels, geometry, side_px, name)
        prepend_preprocessing(model, builder, parts, pixels, spec)
    else:
        return None
    builder.write(model)
    return spec


def _numbers(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))

"""Add saliency maps to ONNX files of other frameworks and measure the overhead. This module does not import torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from kdedge_export.inspection.structure import structure_of
from kdedge_export.onnx_graph.graph_index import GraphIndex
from kdedge_export.onnx_graph.graph_input import find_image_input, make_example_feed
from kdedge_export.onnx_graph.session import open_session
from kdedge_export.onnx_import import ExplainedFile, Geometry, PixelInput, add_saliency, read_labels
from kdedge_export.onnx_import.foreign_file import ForeignFile
from kdedge_export.onnx_import.model_loading import load_foreign_model, unused_inputs
from kdedge_runtime.errors import UsageError
from kdedge_runtime.familiarity import FAMILIARITY
from kdedge_runtime.util.progress import ProgressCallback, no_progress
from kdedge_runtime.util.timing import CpuShare, fastest_ms

__all__ = ["ExplainedOnnx", "MapCost", "explain_onnx"]


@dataclass(frozen=True)
class MapCost:
    """Overhead of the map and of the preprocessing for one image.

    Latencies are the fastest of 30 runs each, measured alternately on one thread of this machine.
    """

    macs: float
    """MACs with the map, relative to those without."""
    latency: float
    """Latency with the map, relative to that without, both with preprocessing in the graph."""
    front_latency: float | None = None
    """Latency with preprocessing in the graph, relative to the file's own input; None without preprocessing."""
    is_busy: bool = False
    """True if other programs used the machine during the measurement, so that latencies are approximate."""


@dataclass(frozen=True)
class ExplainedOnnx:
    """Exported file and its overhead."""

    file: ExplainedFile
    cost: MapCost | None
    """Overhead of the map; None if the source already had one."""
    left_out: tuple[str, ...] = ()
    """Unused inputs of the source that were removed."""


def explain_onnx(
    source: Path,
    *,
    output: Path | None = None,
    target: str | None = None,
    method: str | None = None,
    pixels: PixelInput | None = None,
    geometry: Geometry | None = None,
    labels: Path | None = None,
    side_px: int | None = None,
    head: str | None = None,
    progress: ProgressCallback = no_progress,
) -> ExplainedOnnx:
    """Write `MODEL.explained.onnx` next to a file, or `output`; see `kdedge_export.onnx_import.add_saliency`.

    Args:
        source: the `.onnx` file.
        output: file to write.
        target: target tensor of the map.
        method: saliency method; None takes the default of the head if it is differentiable, else ReciproCAM.
        pixels: preprocessing of pixels, which makes the file usable with `kdedge run`.
        geometry: resizing rule for images.
        labels: file of class names.
        side_px: input size if it is dynamic in the graph.
        head: output to explain, if the file has several classification outputs.
        progress: called during long steps.
    """
    output = output or source.with_suffix(".explained.onnx")
    if output.suffix != ".onnx":
        raise UsageError(f"The model file must end in .onnx; got {output}.")
    names = None if labels is None else read_labels(labels)
    progress("adding the map and checking it", 0, 1)
    file = add_saliency(
        source,
        output,
        target=target,
        method=method,
        pixels=pixels,
        geometry=geometry,
        labels=names,
        side_px=side_px,
        head=head,
    )
    progress("adding the map and checking it", 1, 1)
    if file.was_explained:
        return ExplainedOnnx(file, None)
    left_out = unused_inputs(onnx.load(source, load_external_data=False))
    return ExplainedOnnx(file, _cost(source, output, side_px), left_out)


def _cost(source: Path, output: Path, side_px: int | None) -> MapCost:
    before, after = (load_foreign_model(ForeignFile.open(path)) for path in (source, output))
    without_map = _without_map(after)
    has_front = find_image_input(GraphIndex(after), str(output)) != find_image_input(GraphIndex(before), str(source))
    graphs = [after, without_map, *([before] if has_front else [])]
    calls: list[Callable[[], object]] = []
    for graph in graphs:
        feed = make_example_feed(find_image_input(GraphIndex(graph), str(output)), side_px, images=1)
        calls.append(partial(open_session(graph, exact_sums=False).run, None, feed))
    with CpuShare() as share:
        with_map_ms, without_map_ms, *own_ms = fastest_ms(*calls)
    side = {} if side_px is None else {"side_px": side_px}
    macs = [structure_of(model, **side).macs for model in (before, after)]
    front = without_map_ms / own_ms[0] if own_ms else None
    return MapCost(macs[1] / max(macs[0], 1), with_map_ms / without_map_ms, front, share.is_busy)


def _without_map(explained: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the graph without the explanation outputs, so that onnxruntime prunes their nodes."""
    plain = onnx.ModelProto()
    plain.CopyFrom(explained)
    kept = [value for value in plain.graph.output if value.name not in ("saliency_map", "explained_class", FAMILIARITY)]
    del plain.graph.output[:]
    plain.graph.output.extend(kept)
    return plain

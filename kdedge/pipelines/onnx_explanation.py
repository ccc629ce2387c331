"""From somebody else's `.onnx` file to one that explains itself, with what that costs. Nothing here needs torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from kdedge_export.inspect.structure import structure_of
from kdedge_export.onnx_graph.graph_index import GraphView, session_of
from kdedge_export.onnx_graph.graph_input import example_feed, image_port
from kdedge_export.onnx_import import ExplainedFile, Geometry, PixelInput, explain_file, read_labels
from kdedge_export.onnx_import.graph_methods import Method
from kdedge_export.onnx_import.model_loading import load_file, unread_inputs
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.timing import CpuShare, fastest_ms

__all__ = ["ExplainedOnnx", "MapCost", "explain_onnx"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MapCost:
    """Cost of the map and of the pixel front on top of the answer, for one image.

    Latencies are the fastest of 30 runs each, measured here in turn on one thread.
    """

    macs: float
    """Multiply-accumulates with the map over those without."""
    latency: float
    """Latency with the map over that without, both behind the same front."""
    front_latency: float | None = None
    """Latency with the front over that of the file's own input; None where there is no front."""
    is_busy: bool = False
    """True where other programs used the machine meanwhile, so that the latencies are rough."""


@dataclass(frozen=True)
class ExplainedOnnx:
    """The file that was written and what it costs."""

    file: ExplainedFile
    cost: MapCost | None
    """None where the file was explained already."""
    left_out: tuple[str, ...] = ()
    """The file's inputs that nothing in it reads, which ours does not ask for."""


def explain_onnx(
    source: Path,
    *,
    output: Path | None = None,
    target: str | None = None,
    method: Method | None = None,
    pixels: PixelInput | None = None,
    geometry: Geometry | None = None,
    labels: Path | None = None,
    side_px: int | None = None,
    head: str | None = None,
    progress: Progress = lambda *_: None,
) -> ExplainedOnnx:
    """Write `MODEL.explained.onnx` beside a file, or `output`; see `kdedge_export.onnx_import.explain_file`.

    Args:
        source: the `.onnx` file.
        output: the file to write.
        target: the tensor that the map looks at.
        method: None takes the default of its head where it can be had, else ReciproCAM.
        pixels: how pixels become its input, which makes it a file that `kdedge run` takes.
        geometry: how pictures become its size.
        labels: a file of class names.
        side_px: side of the input where the graph leaves it open.
        head: the output to explain, where the file has several that rank classes.
        progress: told while long steps go on.
    """
    output = output or source.with_suffix(".explained.onnx")
    if output.suffix != ".onnx":
        raise UsageError(f"The model file must end in .onnx, got {output}.")
    names = None if labels is None else read_labels(labels)
    progress("operating and checking", 0, 1)
    file = explain_file(
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
    progress("operating and checking", 1, 1)
    if file.was_explained:
        return ExplainedOnnx(file, None)
    left_out = unread_inputs(onnx.load(source, load_external_data=False))
    return ExplainedOnnx(file, _cost(source, output, side_px), left_out)


def _cost(source: Path, output: Path, side_px: int | None) -> MapCost:
    before, after = load_file(source), load_file(output)
    without_map = _without_map(after)
    has_front = image_port(GraphView(after), str(output)) != image_port(GraphView(before), str(source))
    graphs = [after, without_map, *([before] if has_front else [])]
    calls: list[Callable[[], object]] = []
    for graph in graphs:
        feed = example_feed(image_port(GraphView(graph), str(output)), side_px, images=1)
        calls.append(partial(session_of(graph, str(output), threads=1).run, None, feed))
    with CpuShare() as share:
        with_map_ms, without_map_ms, *own_ms = fastest_ms(*calls)
    side = {} if side_px is None else {"side_px": side_px}
    macs = [structure_of(model, **side).macs for model in (before, after)]
    front = without_map_ms / own_ms[0] if own_ms else None
    return MapCost(macs[1] / max(macs[0], 1), with_map_ms / without_map_ms, front, share.is_busy)


def _without_map(explained: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without the outputs that explain, whose nodes onnxruntime then leaves out."""
    plain = onnx.ModelProto()
    plain.CopyFrom(explained)
    kept = [value for value in plain.graph.output if value.name not in ("saliency_map", "explained_class")]
    del plain.graph.output[:]
    plain.graph.output.extend(kept)
    return plain

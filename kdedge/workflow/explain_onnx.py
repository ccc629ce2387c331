"""From somebody else's `.onnx` file to one that explains itself, with what that costs. Nothing here needs torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from kdedge_export.inspect.structure import structure_of
from kdedge_export.surgery import ExplainedFile, Geometry, PixelInput, explain_file, read_labels
from kdedge_export.surgery.load import load_file, unread_inputs
from kdedge_export.surgery.port import example_feed, image_port
from kdedge_export.surgery.saliency import Method
from kdedge_export.surgery.view import GraphView, session_of
from kdedge_runtime.errors import UsageError
from kdedge_runtime.timing import fastest_ms

__all__ = ["ExplainedOnnx", "MapCost", "explain_onnx"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MapCost:
    """What the map costs on top of the answer, for one image."""

    macs: float
    """Multiply-accumulates with the map over those without."""
    latency: float
    """Latency with the map over that without, the fastest of 30 runs each, measured here in turn on one thread."""


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
    """Write `MODEL.explained.onnx` beside a file, or `output`; see `kdedge_export.surgery.explain_file`.

    Args:
        source: the `.onnx` file.
        output: the file to write.
        target: the tensor that the map looks at.
        method: None takes Grad-CAM where it can be had, else ReciproCAM.
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
    calls: list[Callable[[], object]] = []
    macs: list[int] = []
    for path in (source, output):
        model = load_file(path)
        port = image_port(GraphView(model), str(path))
        session, feed = session_of(model, str(path), threads=1), example_feed(port, side_px, images=1)
        macs.append(structure_of(model, **({} if side_px is None else {"side_px": side_px})).macs)
        calls.append(partial(session.run, None, feed))
    without_ms, with_ms = fastest_ms(*calls)
    return MapCost(macs[1] / max(macs[0], 1), with_ms / without_ms)

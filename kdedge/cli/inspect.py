"""The `kdedge inspect` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdedge_runtime.util.counts import grid_text
from kdedge_runtime.util.printable import printable

if TYPE_CHECKING:
    from kdedge.pipelines.model_inspection import ModelInspection

__all__ = ["inspect"]


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ONNX file (from kdedge or elsewhere) or run folder.")],
    image: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="Image to trace through the model.")] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain, by name or index. [default: the top class]")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML page to write.")] = Path("inspect.html"),
) -> None:
    """Show a model's layers, their cost and attribution."""
    from kdedge.cli.progress_bar import step_progress
    from kdedge.pipelines.model_inspection import inspect_model
    from kdedge.reports.inspection_page import write_inspection
    from kdedge_runtime.errors import UsageError

    if output.suffix != ".html":
        raise UsageError(f"The output page must end in .html; got {output}.")
    with step_progress() as progress:
        inspected = inspect_model(model, image, class_name=class_name, progress=progress)
    write_inspection(inspected, output)
    _print_inspected(inspected, output)


def _print_inspected(inspected: "ModelInspection", page: Path) -> None:
    """Print one line per layer to stdout; print totals, layer attribution and the page path to stderr."""
    from kdedge.cli.console import BUSY, flagged, stderr_console
    from kdedge_export.html.text import large

    structure, times = inspected.structure, inspected.times
    rows = [("layer", "operator", "output", "parameters", "MMACs", "ms")]
    for layer in structure.layers:
        taken = times.by_layer_ms.get(layer.name)
        rows.append(
            (
                printable(layer.name),  # in full, as --target-layer expects it
                printable(layer.op_type),
                "×".join("?" if size is None else str(size) for size in layer.shape),
                f"{layer.parameters:,}" if layer.parameters else "",
                f"{layer.macs / 1e6:.2f}" if layer.macs else "",
                "" if taken is None else f"{taken:.3f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        left = "  ".join(text.ljust(width) for text, width in zip(row[:3], widths[:3], strict=True))
        right = "  ".join(text.rjust(width) for text, width in zip(row[3:], widths[3:], strict=True))
        typer.echo(f"{left}  {right}".rstrip())
    console = stderr_console()

    def write(line: str) -> None:
        console.print(line, soft_wrap=True)

    write(
        f"{inspected.path}  {inspected.bytes / 1e6:.2f} MB, {large(structure.parameters)} parameters, "
        f"{large(structure.macs)} MACs per sample; {times.whole_ms:.2f} ms here on one thread (profiled)"
    )
    if times.is_busy:
        console.print(flagged("note", BUSY), soft_wrap=True)
    if inspected.seen is not None:
        decision, labels = inspected.seen.decision, inspected.seen.labels
        ranked = ((labels[index], inspected.seen.score_text(score)) for index, score in decision.ranking[:3])
        predictions = ", ".join(f"{label} {score}" for label, score in ranked)
        write(f"{inspected.seen.name}: {predictions}; explained: {labels[decision.explained_class]}")
        for stage in decision.stages:
            evidence = stage.evidence
            reader = (
                "" if stage.attention is None else f", input of attention {stage.attention[0]} of {stage.attention[1]}"
            )
            first = ", ".join(f"{item.index} ({item.share:.0%})" for item in evidence.channels[:3])
            beside = "" if evidence.beside is None else f"; {evidence.beside:.0%} in non-patch tokens"
            write(
                f"  {grid_text(*stage.positions)}{reader}  {stage.way}: half of the attribution in "
                f"{evidence.channels_for(0.5)} of {len(evidence.shares)} channels; {first}{beside}  {stage.tensor}"
            )
    if inspected.why_not_seen is not None:
        console.print(flagged("note", inspected.why_not_seen), soft_wrap=True)
    write(f"\npage: {page}")

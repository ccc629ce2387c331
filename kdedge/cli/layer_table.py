"""What `kdedge inspect` says: the layers as a table on stdout, words on stderr."""

from pathlib import Path

import typer

from kdedge.cli.console import BUSY, flagged, stderr_console
from kdedge.pipelines.model_inspection import Inspected
from kdedge_export.html.text import large
from kdedge_runtime.util.printable import printable

__all__ = ["print_inspected"]


def print_inspected(inspected: Inspected, page: Path) -> None:
    """Print a line a layer (on stdout), the sums, the decision, and where the page is (on stderr)."""
    structure, times = inspected.structure, inspected.times
    rows = [("layer", "operator", "output", "parameters", "MMACs", "ms")]
    for layer in structure.layers:
        taken = times.by_layer_ms.get(layer.name)
        rows.append(
            (
                printable(layer.name),  # in full: what --target-layer takes
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

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    say(
        f"{inspected.path}  {inspected.bytes / 1e6:.2f} MB, {large(structure.parameters)} parameters, "
        f"{large(structure.macs)} MACs an image; on one thread here {times.whole_ms:.2f} ms, profiled"
    )
    if times.is_busy:
        console.print(flagged("note", BUSY), soft_wrap=True)
    if inspected.seen is not None:
        decision, labels = inspected.seen.decision, inspected.seen.labels
        answers = ", ".join(f"{labels[index]} {100 * share:.1f} %" for index, share in decision.ranking[:3])
        say(f"{inspected.seen.name}: {answers}; explained: {labels[decision.explained_class]}")
        for stage in decision.stages:
            height, width = stage.cells
            evidence = stage.evidence
            reader = (
                "" if stage.attention is None else f", read by attention {stage.attention[0]} of {stage.attention[1]}"
            )
            first = ", ".join(f"{item.index} ({100 * item.share:.0f} %)" for item in evidence.channels[:3])
            beside = "" if evidence.beside is None else f"; {100 * evidence.beside:.0f} % in tokens beside the patches"
            say(
                f"  {width} × {height}{reader}  {stage.way}: half of the evidence in {evidence.channels_for(0.5)} of "
                f"{len(evidence.shares)} channels; {first}{beside}  {stage.tensor}"
            )
    if inspected.why_not_seen is not None:
        console.print(flagged("note", inspected.why_not_seen), soft_wrap=True)
    say(f"\nThe page: {page}")

"""The `kdedge validate` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdedge.cli.options import TrustCode
from kdedge.cli.validation_tables import report_tables
from kdedge_runtime.errors import UsageError
from kdedge_runtime.precision import FP32
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from kdedge.pipelines.model_validation import Validation
    from kdedge_export.validation import ValidationReport

__all__ = ["validate"]


def validate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Run folder with exported files, or a model file.")],
    data: Annotated[
        str | None, typer.Option(help="Samples to validate on. [default: the run's validation split]")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Object annotations: a CSV table with the columns file, x1, y1, x2, y2 in pixels, or a folder of "
            "masks. [default: boxes.csv in the data folder]"
        ),
    ] = None,
    max_evidence_outside: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="FRACTION",
            help="Maximum fraction of the positive evidence outside the annotated regions, such as 0.2. [default: "
            "reported only]",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights the model file was exported from. [default: searched next to the model file and in "
            "the current directory]"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Function that builds the model, if the file was exported from a Python file.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device profile with the latency and memory budgets to check. [default: the profile the "
            "files were quantized for]"
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the faithfulness and robustness checks.")] = False,
    unfamiliar: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Samples of no known class, to measure the detection rate. [default: left-out classes, Frigate's "
            "none/ and unknown/, and synthetic textures]",
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Recordings without any of the classes, to count false alarms per hour. Labels that start with _ "
            "cause no alarm. [default: not counted]",
        ),
    ] = None,
    max_false_alarms: Annotated[
        float | None,
        typer.Option(
            metavar="PER_HOUR",
            min=0,
            help="Maximum false alarms per hour on --background. [default: no bound]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder of the report. [default: report/ in the run folder, or MODEL.report/ next to the file]"
        ),
    ] = None,
    trust_code: TrustCode = None,
) -> None:
    """Validate exported files against the PyTorch model. Exits with 4 unless every bound is confirmed.

    A file from `kdedge export MODEL.onnx` has no PyTorch reference. It is validated alone, and its other precisions
    against it.
    """
    from kdedge.data.readers.reader_choice import check_data_source
    from kdedge.models.artifacts import Artifacts
    from kdedge.models.model_source import check_weights
    from kdedge_runtime.devices import load_profile

    if max_false_alarms is not None and background is None:
        raise UsageError("--max-false-alarms needs recordings without the classes. Add --background DIR.")
    # Checked before torch is imported, which takes seconds.
    artifacts = Artifacts.open(source)
    artifacts.fp32_file()
    for location in (data, unfamiliar):
        if location is not None:
            check_data_source(location)
    if weights is not None:
        check_weights(weights)
    if device is not None:
        load_profile(device)
    import kdedge
    from kdedge.cli.progress_bar import step_progress

    with step_progress() as progress:
        validation = kdedge.validate(
            artifacts,
            data=data,
            boxes=boxes,
            max_evidence_outside=max_evidence_outside,
            weights=weights,
            model=model,
            device=device,
            quick=quick,
            unfamiliar=unfamiliar,
            background=background,
            max_false_alarms=max_false_alarms,
            output=out,
            progress=progress,
        )
    _print_validation(validation)
    validation.require_passed()


def _print_validation(validation: "Validation") -> None:
    """Print the checklist to stdout; print tables and the report path to stderr."""
    from kdedge.cli.console import flagged, stderr_console
    from kdedge.cli.next_command import live_command
    from kdedge_export.validation import checklist

    console = stderr_console()
    report = validation.report
    for note in report.notes:
        console.print(flagged("note", note), soft_wrap=True)
    for table in report_tables(report):
        console.print(table)
    for line in checklist(report.checks):
        typer.echo(printable(line))
    _print_meaning(console, report)
    console.print(f"\nreport: {validation.page}", soft_wrap=True)
    if report.passed:
        chosen, shipped = validation.fastest, report.shipped.name
        slower = chosen != validation.model
        why = f"  ({shipped} is not faster on this machine; the device may differ)" if slower else ""
        console.print(f"Next: {live_command(chosen, validation.example_source)}{why}", soft_wrap=True)


def _print_meaning(console: "Console", report: "ValidationReport") -> None:
    """Print notes on how to interpret the metrics."""
    from kdedge_export.metrics.confidence import unseen_share

    console.print(
        "[…]: 95% confidence interval over samples. A bound holds if the unfavorable end of the interval keeps it."
    )
    if any(check.key.endswith("_known_rejected") for check in report.checks):
        console.print("Known samples called unknown fail only if the whole interval exceeds the bound.")
    right = {role: facts.accuracy for role, facts in report.models.items() if facts.accuracy is not None}
    if "student" in right:
        wording = report.wording
        beside = f", that of its teacher {wording.shown(right['teacher'])}" if "teacher" in right else ""
        console.print(
            f"The checks compare the exported files with the student, whose {wording.accuracy_phrase} is "
            f"{wording.shown(right['student'])}{beside}."
        )
    for name, facts in report.models.items():
        if facts.arithmetic is not None:
            console.print(f"{name} is evaluated with {facts.arithmetic}, and timed with the kernels of this machine.")
    if report.quick:
        console.print("--quick: faithfulness and robustness were skipped.")
    if report.origin.name == FP32.name:
        held = ", and the other files are compared with it" if len(report.models) > 1 else ""
        console.print(f"There is no PyTorch model: the fp32 file is validated alone{held}.")
    compared = report.comparisons.get(report.shipped.name)
    if compared is not None and compared.agreement == 1.0:
        share = 100 * unseen_share(report.samples)
        console.print(
            f"No prediction changed on {counted(report.samples, 'sample')}. Changes on up to {share:.3g}% of samples "
            "may go unseen (95%)."
        )

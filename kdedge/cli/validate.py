"""The `kdedge validate` command."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdedge.cli.options import TrustCode
from kdedge_runtime.errors import UsageError
from kdedge_runtime.precision import FP32
from kdedge_runtime.util.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from kdedge.pipelines.model_validation import Validation
    from kdedge_export.metrics.calibration import Calibration
    from kdedge_export.metrics.confidence import Interval
    from kdedge_export.validation import ValidationReport

__all__ = ["validate"]

_WORST_CLASSES = 5
_BASELINES = {"center": "center prior", "random": "random maps", "edges": "edges (Sobel)"}


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
    from kdedge_export.validation import checklist

    console = stderr_console()
    report = validation.report
    for note in report.notes:
        console.print(flagged("note", note), soft_wrap=True)
    tables = (_models, _maps, _robustness, _recognition, _verification, _false_alarms, _classes)
    for table in (build(report) for build in tables):
        if table is not None and table.row_count:
            console.print(table)
    for line in checklist(report.checks):
        typer.echo(printable(line))
    _print_meaning(console, report)
    console.print(f"\nreport: {validation.page}", soft_wrap=True)
    if report.passed:
        chosen, shipped = validation.fastest, report.shipped.name
        command = ["kdedge", "run", str(chosen)]
        slower = chosen != validation.model
        why = f"  ({shipped} is not faster on this machine; the device may differ)" if slower else ""
        source = ["--source", validation.example_source, "--view", "8080"]
        console.print(f"Next: {shlex.join([*command, *source])}{why}", soft_wrap=True)


def _models(report: "ValidationReport") -> "Table":
    wording, title = report.wording, f"{report.samples:,} samples: {report.data.description}"
    columns = (
        *("size", wording.accuracy, "AUROC", "agreement", wording.divergence_heading),
        *("map Pearson", "5th pct", "IoU", "ECE", "latency"),
    )
    rows = []
    for candidate in report.candidates:
        role, facts = candidate.name, report.models[candidate.name]
        compared, calibrated = report.comparisons.get(role), report.calibration.get(role)
        footprint = report.footprints.get(role)
        maps = compared.maps if compared is not None else None
        rows.append(
            (
                candidate.title,
                f"{facts.bytes / 1e6:.2f} MB",
                "" if facts.accuracy is None else wording.shown(facts.accuracy, 2),
                "" if facts.auroc is None else f"{facts.auroc:.3f}",
                "" if compared is None else f"{compared.agreement:.2%}",
                "" if compared is None else f"{compared.divergence:.4f}",
                "" if maps is None else f"{maps.pearson_mean:.4f}",
                "" if maps is None else f"{maps.pearson_p5:.4f}",
                "" if maps is None else f"{maps.top20_iou_mean:.3f}",
                "" if calibrated is None else _calibrated(calibrated),
                "" if footprint is None else f"{footprint.latency_ms:.2f} ms",
            )
        )
    return _measured(title, columns, rows)


def _maps(report: "ValidationReport") -> "Table | None":
    """Build a table of the maps' localization and faithfulness, next to model-independent baselines."""
    from kdedge_export.html.text import plain_number

    places, faith = report.localization, report.faithfulness
    if places is None and faith is None:
        return None
    sampled = [f"objects in {places.samples:,} samples"] if places is not None else []
    sampled += [f"deletion and insertion on {faith.samples:,}"] if faith is not None else []
    columns = "on the object", "energy inside", "deletion", "insertion"
    rows = []
    area = "{:.3f}".format if report.wording.is_share else plain_number
    titles = _BASELINES | {candidate.name: candidate.title for candidate in report.candidates}
    for name in _in_order(places.rows if places else {}, faith.rows if faith else {}):
        place = places.rows.get(name) if places else None
        curves = faith.rows.get(name) if faith else None
        row = (
            titles.get(name, name),  # a baseline of the modality names itself
            "" if place is None else _share(place.pointing, place.intervals["pointing"]),
            "" if place is None else _share(place.energy_inside, place.intervals["energy_inside"]),
            "" if curves is None else area(curves.deletion),
            "" if curves is None else area(curves.insertion),
        )
        rows.append(row)
    return _measured(f"Maps: {', '.join(sampled)}", columns, rows)


def _robustness(report: "ValidationReport") -> "Table | None":
    from kdedge_export.html.text import correlation

    if report.robustness is None:
        return None
    table = _table(
        f"{report.shipped.title}, robustness on {report.robustness.samples} samples",
        report.wording.accuracy,
        "agreement",
        "map Pearson",
    )
    for title in ("prediction unchanged", "map Pearson with clean"):
        table.add_column(title, justify="right")
    for row in report.robustness.rows:
        if row.model == report.shipped.name:
            table.add_row(
                row.corruption,
                "–" if row.accuracy is None else report.wording.shown(row.accuracy),
                "–" if row.agreement is None else f"{row.agreement:.1%}",
                "" if row.map_pearson is None else correlation(row.map_pearson),
                f"{row.prediction_kept:.1%}",
                "" if row.map_kept is None else correlation(row.map_kept),
            )
    return table


def _recognition(report: "ValidationReport") -> "Table | None":
    """Build a table of the unfamiliar samples: separation, and detection at the threshold."""
    found = report.familiarity
    if found is None:
        return None
    titles = {candidate.name: candidate.title for candidate in report.candidates}
    title = f"Unfamiliar samples, familiarity by {found.method}"
    table = _table(title, "model", "samples", "AUROC", "AUROC of softmax", "called unknown")
    for row in found.groups:
        table.add_row(
            row.group,
            titles[row.model],
            f"{row.samples:,}",
            f"{row.auroc:.1%}",
            "–" if row.max_softmax_auroc is None else f"{row.max_softmax_auroc:.1%}",
            "–" if row.detected is None else _share(row.detected, row.intervals.get("detected")),
        )
    return table


def _verification(report: "ValidationReport") -> "Table | None":
    """Build a table of the verification of pairs of samples by embeddings."""
    found = report.verification
    if found is None:
        return None
    titles = {candidate.name: candidate.title for candidate in report.candidates}
    pairs = f"{found.genuine:,} genuine and {found.impostors:,} impostor pairs"
    table = _table(
        f"Verification: {pairs} of {found.samples:,} samples", "equal error rate", "true accepts at 1% false accepts"
    )
    for row in found.files:
        table.add_row(
            titles[row.model],
            _share(row.equal_error, row.intervals["equal_error"]),
            _share(row.true_accepts, row.intervals["true_accepts"]),
        )
    return table


def _false_alarms(report: "ValidationReport") -> "Table | None":
    """Build a table of the false alarms on background recordings."""
    if not report.false_alarms:
        return None
    titles = {candidate.name: candidate.title for candidate in report.candidates}
    table = _table(f"False alarms in {report.false_alarms[0].hours:.2f} h of background", "alarms", "per hour", "95%")
    for row in report.false_alarms:
        interval = f"{row.interval.low:.1f} to {row.interval.high:.1f}"
        table.add_row(titles[row.model], f"{row.alarms:,}", f"{row.per_hour:.1f}", interval)
    return table


def _classes(report: "ValidationReport") -> "Table | None":
    from kdedge_export.html.text import correlation

    if len(report.classes) < 2:
        return None
    role = report.shipped.name
    shown = report.classes[:_WORST_CLASSES]
    table = _table(f"{report.shipped.title}, worst of {len(report.classes)} classes", "samples", "top-1", "agreement")
    table.add_column("map Pearson", justify="right")
    for row in shown:
        pearson = row.map_pearson.get(role)
        table.add_row(
            row.label,
            str(row.n),
            f"{row.accuracy[role]:.1%}" if role in row.accuracy else "–",
            f"{row.agreement[role]:.1%}" if role in row.agreement else "–",
            "" if pearson is None else correlation(pearson),
        )
    return table


def _print_meaning(console: "Console", report: "ValidationReport") -> None:
    """Print notes on how to interpret the metrics."""
    from kdedge_export.metrics.confidence import unseen_share

    console.print(
        "[…]: 95% confidence interval over samples. A bound holds if the unfavorable end of the interval keeps it."
    )
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
            f"No prediction changed on {report.samples:,} samples. Changes on up to {share:.3g}% of samples "
            "may go unseen (95%)."
        )


def _calibrated(found: "Calibration") -> str:
    """Format the calibration error before and after temperature scaling."""
    before = "" if found.temperature == 1.0 else f"{100 * found.ece_before:.1f}→"
    return f"{before}{found.ece:.1%}"


def _table(title: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left")
    return table


def _measured(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    """Build a table without the columns in which every cell is empty."""
    kept = [place for place in range(1, 1 + len(columns)) if any(row[place] for row in rows)]
    table = _table(title, *(columns[place - 1] for place in kept))
    for row in rows:
        table.add_row(row[0], *(row[place] for place in kept))
    return table


def _in_order(*of_names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for names in of_names for name in names))


def _share(value: float, interval: "Interval | None") -> str:
    return f"{value:.1%}" + ("" if interval is None else f" ± {50 * (interval.high - interval.low):.1f}")

"""Tables of a validation report for the terminal."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from kdedge_export.metrics.calibration import Calibration
    from kdedge_export.metrics.confidence import Interval
    from kdedge_export.validation import ValidationReport

__all__ = [
    "classes_table",
    "false_alarms_table",
    "maps_table",
    "models_table",
    "recognition_table",
    "report_tables",
    "robustness_table",
    "verification_table",
]

_WORST_CLASSES = 5
_BASELINES = {"center": "center prior", "random": "random maps", "edges": "edges (Sobel)"}


def report_tables(report: "ValidationReport") -> "Iterator[Table]":
    """Yield the tables of all measurements in the order of the report; a table without rows is omitted."""
    builders = (
        models_table,
        maps_table,
        robustness_table,
        recognition_table,
        verification_table,
        false_alarms_table,
        classes_table,
    )
    for build in builders:
        table = build(report)
        if table is not None and table.row_count:
            yield table


def models_table(report: "ValidationReport") -> "Table":
    """Build a table of every model: accuracy, agreement with its reference, maps, calibration and latency."""
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


def maps_table(report: "ValidationReport") -> "Table | None":
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
    titles = _BASELINES | _titles(report)
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


def robustness_table(report: "ValidationReport") -> "Table | None":
    """Build a table of accuracy and maps on corrupted samples."""
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


def recognition_table(report: "ValidationReport") -> "Table | None":
    """Build a table of the unfamiliar samples: separation, and detection at the threshold."""
    found = report.familiarity
    if found is None:
        return None
    titles = _titles(report)
    title = f"Unfamiliar samples, familiarity by {found.method}"
    table = _table(title, "model", "samples", "AUROC", "AUROC of softmax", "called unknown")
    for row in found.groups:
        table.add_row(
            row.group,
            titles[row.model],
            f"{row.samples:,}",
            f"{row.auroc:.3f}",
            "–" if row.max_softmax_auroc is None else f"{row.max_softmax_auroc:.3f}",
            "–" if row.detected is None else _share(row.detected, row.intervals.get("detected")),
        )
    return table


def verification_table(report: "ValidationReport") -> "Table | None":
    """Build a table of the verification of pairs of samples by embeddings."""
    found = report.verification
    if found is None:
        return None
    titles = _titles(report)
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


def false_alarms_table(report: "ValidationReport") -> "Table | None":
    """Build a table of the false alarms on background recordings."""
    if not report.false_alarms:
        return None
    titles = _titles(report)
    table = _table(f"False alarms in {report.false_alarms[0].hours:.2f} h of background", "alarms", "per hour", "95%")
    for row in report.false_alarms:
        interval = f"{row.interval.low:.1f} to {row.interval.high:.1f}"
        table.add_row(titles[row.model], f"{row.alarms:,}", f"{row.per_hour:.1f}", interval)
    return table


def classes_table(report: "ValidationReport") -> "Table | None":
    """Build a table of the classes on which the deployed file is worst."""
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


def _titles(report: "ValidationReport") -> dict[str, str]:
    return {candidate.name: candidate.title for candidate in report.candidates}


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

"""Comparison of runs as a page."""

import math
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from kdedge import __version__
from kdedge.pipelines.run_comparison import RunComparison
from kdedge.pipelines.run_history import RunHistory
from kdedge.reports.accuracy_chart import accuracy_chart
from kdedge.reports.class_table import class_rows
from kdedge.reports.disagreement_gallery import disagreement_gallery
from kdedge.reports.error_table import error_rows
from kdedge.reports.learning_curves import learning_curves
from kdedge.reports.run_figures import ACCURACIES, FIGURES, Column, figure_of, format_figure
from kdedge.reports.run_settings import run_settings
from kdedge.reports.run_styles import styles_of_runs
from kdedge.reports.run_tables import groups_table, runs_table
from kdedge.tasks import TRAINING_TASKS
from kdedge_export.html.page import render
from kdedge_export.modalities import modality_of
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.files import atomic_write

__all__ = ["Leader", "render_page", "write_page"]


@dataclass(frozen=True)
class Leader:
    """Run with the highest figure."""

    name: str
    value: str
    """Figure with its unit."""
    is_tested: bool
    """True if the figures are on test samples, which all runs have; else on validation samples."""


def render_page(comparison: RunComparison) -> str:
    """Render the complete page as HTML, without scripts or external resources."""
    styles, settings = styles_of_runs(comparison.groups), run_settings(comparison)
    return render(
        "kdedge.reports",
        "comparison.html",
        runs=comparison.runs,
        warnings=comparison.warnings,
        notes=comparison.notes,
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        styles=styles,
        shared=settings.shared,
        runs_table=runs_table(comparison, settings, styles),
        groups_table=groups_table(comparison, styles),
        curves=learning_curves(comparison.runs, styles),
        accuracy=accuracy_chart(comparison.groups, styles),
        modality=modality_of(comparison.runs[0].record.input),
        versions=f"kdedge {__version__} · torch {torch.__version__}",
        **_summary(comparison),
        **_compared_predictions(comparison),
    )


def write_page(comparison: RunComparison, path: Path) -> None:
    """Write the page atomically."""
    atomic_write(path, render_page(comparison))


def _summary(comparison: RunComparison) -> dict[str, object]:
    """Return the leading runs, as far as the runs are comparable."""
    runs = [run for run in comparison.runs if run.best is not None]
    taught = [run for run in runs if run.teachers]
    rivals = taught or runs
    explained = [run for run in taught if _validated(run, "map_pearson") is not None]
    is_one_teacher = len(explained) > 1 and len({run.taught_by for run in explained}) == 1
    accuracy = next((key for key in ACCURACIES if all(_validated(run, key) is not None for run in rivals)), None)
    return {
        "is_ranked": len({run.samples for run in runs}) == 1,
        "data": runs[0].data,
        "sample_count": runs[0].samples[2],
        "are_students": bool(taught),
        "has_classes": any(TASKS[run.record.task].has_classes for run in runs),
        "accuracy_name": None if accuracy is None else FIGURES[accuracy].removesuffix(" %"),
        "most_accurate": _leader(rivals, accuracy) if accuracy is not None and len(rivals) > 1 else None,
        "closest": _leader(explained, "map_pearson") if is_one_teacher else None,
    }


def _compared_predictions(comparison: RunComparison) -> dict[str, object]:
    """Return the table of classes or of errors, and the samples on which the models differ."""
    predictions = comparison.predictions
    first = predictions[0] if predictions else None
    has_values = first is not None and TASKS[first.task].has_values
    of_classes = None if first is None or has_values else first.samples
    return {
        "compared": [one.title for one in predictions],
        "classes": [] if of_classes is None else class_rows(predictions),
        "smallest_class": 0 if of_classes is None else min(Counter(of_classes.targets.tolist()).values()),
        "has_values": has_values,
        "errors": error_rows(predictions) if has_values else [],
        "unit": None if first is None else TRAINING_TASKS[first.task].unit(first.labels),
        "gallery": disagreement_gallery(predictions, comparison.teachers) if predictions else [],
    }


def _validated(run: RunHistory, key: str) -> float | None:
    return figure_of(run, Column("val", "best", key))


def _leader(runs: list[RunHistory], key: str) -> Leader:
    tested = [figure_of(run, Column("test", "best", key)) for run in runs]
    validated = [_validated(run, key) for run in runs]
    figures = validated if None in tested else tested
    value, _, name = max(
        (-math.inf if value is None else value, -place, run.name)
        for place, (run, value) in enumerate(zip(runs, figures, strict=True))
    )
    return Leader(name, format_figure(key, value) + "%" * (key == "top1"), is_tested=figures is tested)

"""Assemble the comparison page from its parts and the template."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from string import Template

import torch

from kdedge import __version__
from kdedge.pipelines.run_comparison import RunComparison
from kdedge.pipelines.run_history import RunHistory
from kdedge.reports.pages.class_table import class_table
from kdedge.reports.pages.disagreement_gallery import gallery
from kdedge.reports.pages.learning_curves import learning_curves
from kdedge.reports.pages.run_styles import RunStyle, styles_of_runs, swatch
from kdedge.reports.pages.run_tables import groups_table, runs_table
from kdedge.reports.pages.scatter import scatter
from kdedge.reports.run_figures import Column, figure_of
from kdedge.reports.run_settings import RunSettings, run_settings
from kdedge_export.html.shell import shell
from kdedge_export.html.text import correlation, escape, percent
from kdedge_runtime.util.files import atomic_write

__all__ = ["render_page", "write_page"]


def render_page(comparison: RunComparison) -> str:
    """Render the complete page as HTML, without scripts or external resources."""
    folder = files("kdedge.reports.pages")
    settings, looks = run_settings(comparison), styles_of_runs(comparison.groups)
    count = len(comparison.runs)
    headline = f"{count} runs compared" if count > 1 else "1 run"
    body = Template(folder.joinpath("comparison.html.tmpl").read_text("utf-8")).substitute(
        outcome="unknown" if comparison.doubts else "neutral",
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        headline=headline,
        summary=_summary(comparison),
        remarks=_remarks(comparison),
        runs=runs_table(comparison, settings, looks),
        shared=_shared(settings, count),
        groups=_groups(comparison, looks),
        legend="".join(
            f'<li data-run="{number}">{swatch(looks[run.name])} {escape(run.name)}</li>'
            for number, run in enumerate(comparison.runs)
            if run.epochs
        ),
        curves=learning_curves(comparison.runs, looks),
        scatter=_scatter(comparison, looks),
        classes=_classes(comparison, looks),
        images=_images(comparison, looks),
        folders=_folders(comparison),
        versions=f"kdedge {__version__} · torch {torch.__version__}",
    )
    style = folder.joinpath("comparison.css").read_text("utf-8") + _alone(count)
    return shell(f"{headline} – kdedge", body, style)


def write_page(comparison: RunComparison, path: Path) -> None:
    """Write the page atomically."""
    atomic_write(path, render_page(comparison))


def _summary(comparison: RunComparison) -> str:
    """Summarize the leading run in a sentence, if the runs are comparable."""
    runs = [run for run in comparison.runs if run.best is not None]
    if len({run.images for run in runs}) > 1:
        return "These runs were validated on different images, so they are not ranked."
    parts = [
        (
            f"Measured on {runs[0].images[2]:,} validation images of {escape(runs[0].data)}, which also selected "
            "each run’s best epoch."
        )
    ]
    taught = [run for run in runs if run.teachers]
    rivals = taught or runs
    if len(rivals) > 1:
        name, value, where = _leader(rivals, "top1")
        whose = " of the students" if taught else ""
        parts.append(f"Highest top-1{whose}{where}: <b>{escape(name)}</b>, {percent(value)}.")
    explained = [run for run in taught if figure_of(run, Column("val", "best", "map_pearson")) is not None]
    if len(explained) > 1 and len({run.taught_by for run in explained}) == 1:
        name, value, where = _leader(explained, "map_pearson")
        parts.append(f"Maps closest to the teacher’s{where}: <b>{escape(name)}</b>, r = {correlation(value)}.")
    return " ".join(parts)


def _leader(runs: list[RunHistory], key: str) -> tuple[str, float, str]:
    """Return the run with the highest figure, the figure, and a suffix if it is on test images (all runs tested)."""
    tested = [figure_of(run, Column("test", "best", key)) for run in runs]
    validated = [figure_of(run, Column("val", "best", key)) for run in runs]
    figures = validated if None in tested else tested
    value, _, name = max(
        (value or 0.0, -place, run.name) for place, (run, value) in enumerate(zip(runs, figures, strict=True))
    )
    return name, value, "" if figures is validated else ", on the test images"


def _shared(settings: RunSettings, count: int) -> str:
    texts = ", ".join(f"{name} {text}" for name, text in settings.shared.items())
    return f"{'Shared by all runs' if count > 1 else 'Settings'}: {escape(texts)}." if texts else ""


def _remarks(comparison: RunComparison) -> str:
    items = [f"<li><b>{escape(doubt)}</b></li>" for doubt in comparison.doubts]
    items += [f"<li>{escape(note)}</li>" for note in comparison.notes]
    return f'<ul class="remarks">{"".join(items)}</ul>' if items else ""


def _groups(comparison: RunComparison, looks: Mapping[str, RunStyle]) -> str:
    table = groups_table(comparison, looks)
    if not table:
        return ""
    return (
        "<h3>Mean over seeds</h3>"
        '<p class="lead">Mean ± standard deviation over complete runs that differ only in their seed.</p>'
    ) + table


def _scatter(comparison: RunComparison, looks: Mapping[str, RunStyle]) -> str:
    drawn = scatter(comparison.groups, looks)
    if drawn is None:
        return ""
    left_out = (
        f" Not shown, because a teacher or maps are missing: {', '.join(drawn.left_out)}." if drawn.left_out else ""
    )
    return (
        f"<h2>Accuracy against {drawn.over}</h2>"
        '<p class="lead">One point per run, at its best epoch by validation. Up is more accurate, right is closer to '
        "the teacher. A cross spans one standard deviation to each side of the mean of runs that differ only in their "
        f"seed.{escape(left_out)}</p>"
        f'<figure class="plot">{drawn.svg}</figure>'
    )


def _classes(comparison: RunComparison, looks: Mapping[str, RunStyle]) -> str:
    if not comparison.predictions:
        return ""
    first = comparison.predictions[0]
    smallest = min(Counter(first.images.targets.tolist()).values())
    others = (
        ""
        if len(comparison.predictions) == 1
        else " and the change of every other run in points; the class with the largest loss comes first"
    )
    return (
        "<h2>Classes</h2>"
        f'<p class="lead">Top-1 of {escape(first.title)}, the baseline{others}. Best epoch of each run. One image is '
        f"{100 / smallest:.1f} points of the smallest class, so small changes may be chance.</p>"
    ) + class_table(comparison.predictions, looks)


def _images(comparison: RunComparison, looks: Mapping[str, RunStyle]) -> str:
    rows = gallery(comparison.predictions, comparison.teachers, looks) if comparison.predictions else ""
    if not rows:
        return ""
    return (
        "<h2>Images</h2>"
        '<p class="lead">Validation images on which the predictions and maps of the runs differ most. All maps of a '
        "row explain the ground-truth class, regardless of the prediction. Each map is scaled by itself: it shows the "
        f"location of the evidence, not its strength.</p>{rows}"
    )


def _folders(comparison: RunComparison) -> str:
    rows = (
        f'<tr><th scope="row">{escape(run.name)}</th><td><code>{escape(str(run.folder))}</code></td></tr>'
        for run in comparison.runs
    )
    return f'<table class="files">{"".join(rows)}</table>'


def _alone(count: int) -> str:
    """Return CSS rules that fade all other lines while the pointer is over a run's name."""
    return "".join(
        f'main:has(:is(li, tr)[data-run="{number}"]:hover) .curve:not([data-run="{number}"]) {{ opacity: .12; }}\n'
        for number in range(count)
    )

"""HTML tables of runs and their groups."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from kdedge.pipelines.run_comparison import RunComparison
from kdedge.reports.pages.run_styles import RunStyle, swatch
from kdedge.reports.run_figures import (
    FIGURES,
    Column,
    columns_of,
    figure_of,
    format_figure,
    format_spread,
    group_figure,
)
from kdedge.reports.run_settings import RunSettings, duration
from kdedge_export.html.text import correlation, escape

__all__ = ["groups_table", "runs_table"]

_NONE = correlation(None)


def runs_table(comparison: RunComparison, settings: RunSettings, looks: Mapping[str, RunStyle]) -> str:
    """Return a table with one row per run: metrics, duration, and the settings that differ between runs."""
    columns = columns_of(comparison.runs)
    rows = []
    for number, run in enumerate(comparison.runs):
        figures = (format_figure(column.key, figure_of(run, column)) or _NONE for column in columns)
        positions = [f"{run.epochs_done} of {run.record.recipe['epochs']}", *figures, duration(run.seconds)]
        texts = [escape(values[number]) or _NONE for values in settings.differing.values()]
        rows.append(_row(_name(run.name, looks[run.name]), positions, texts, f' data-run="{number}"'))
    spans = [("", 2), *_spans(columns), ("", 1 + len(settings.differing))]
    headings = ["run", "epochs", *(FIGURES[column.key] for column in columns), "time"]
    return _table(spans, headings, settings.differing, rows)


def groups_table(comparison: RunComparison, looks: Mapping[str, RunStyle]) -> str:
    """Return a table with mean and standard deviation per group of seeds; empty if every group has one run."""
    if all(len(group.runs) == 1 for group in comparison.groups):
        return ""
    columns = columns_of(comparison.runs)
    rows = []
    for group in comparison.groups:
        figures = (format_spread(column.key, group_figure(group, column)) or _NONE for column in columns)
        rows.append(_row(_name(group.name, looks[group.runs[0].name]), [str(len(group.runs)), *figures]))
    return _table([("", 2), *_spans(columns)], ["runs", "n", *(FIGURES[column.key] for column in columns)], (), rows)


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    return [(title, len(list(members))) for title, members in groupby(columns, key=lambda column: column.group)]


def _name(name: str, look: RunStyle) -> str:
    return f"{swatch(look)} {escape(name)}"


def _row(name: str, positions: Iterable[str], settings: Iterable[str] = (), attributes: str = "") -> str:
    drawn = "".join(f"<td>{position}</td>" for position in positions)
    texts = "".join(f'<td class="setting">{text}</td>' for text in settings)
    return f'<tr{attributes}><th scope="row">{name}</th>{drawn}{texts}</tr>'


def _table(
    spans: Iterable[tuple[str, int]], headings: Iterable[str], settings: Iterable[str], rows: Iterable[str]
) -> str:
    groups = "".join(f'<th colspan="{span}" scope="colgroup"><span>{title}</span></th>' for title, span in spans)
    heads = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    heads += "".join(f'<th scope="col" class="setting">{escape(setting)}</th>' for setting in settings)
    return (
        f'<div class="scroll"><table class="runs"><thead><tr class="groups">{groups}</tr><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )

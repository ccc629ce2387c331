"""Puts the page together from its parts and the template."""

from importlib.resources import files
from pathlib import Path
from string import Template

from kdedge_export.validate.checklist import asked_for, found
from kdedge_export.validate.evidence import Evidence
from kdedge_export.validate.gates import Check
from kdedge_export.validate.page.choice import choose
from kdedge_export.validate.page.histogram import histogram, lower_end
from kdedge_export.validate.page.rows import gallery
from kdedge_export.validate.page.shell import shell
from kdedge_export.validate.page.table import model_table
from kdedge_export.validate.page.text import correlation, escape, megabytes, percent, points
from kdedge_export.validate.report import ValidationReport
from kdedge_export.validate.roles import REFERENCE, TITLES, WORDS, Role
from kdedge_runtime.files import write_whole

__all__ = ["render_page", "write_page"]

_OUTCOMES = {True: ("passed", "✓"), False: ("failed", "✕"), None: ("unknown", "–")}
_RELATIONS = {">=": "≥", "<=": "≤"}


def render_page(report: ValidationReport, evidence: Evidence) -> str:
    """The whole page as HTML: no script, nothing loaded from anywhere, below about 6 MB."""
    outcome, headline = _verdict(report)
    template = Template(files("kdedge_export.validate.page").joinpath("report.html.tmpl").read_text("utf-8"))
    body = template.substitute(
        outcome=outcome,
        headline=headline,
        summary=_summary(report, evidence.shipped),
        data=escape(report.data or "unnamed data"),
        images=f"{report.images} image{'' if report.images == 1 else 's'}",
        created=escape(report.created.replace("T", " ").replace("+00:00", " UTC")),
        checks="".join(_check(check) for check in report.checks),
        table=model_table(report, evidence),
        histograms=_histograms(report, evidence),
        gallery=gallery(choose(evidence), evidence),
        files=_files(report),
        versions=" · ".join(escape(f"{name} {value}") for name, value in report.versions.items()),
    )
    return shell(f"{headline} – kdedge validation", body)


def write_page(report: ValidationReport, evidence: Evidence, path: Path) -> None:
    """Write `report.html`, whole or not at all."""
    write_whole(path, render_page(report, evidence))


def _verdict(report: ValidationReport) -> tuple[str, str]:
    failed = sum(check.passed is False for check in report.checks)
    unmeasured = sum(check.passed is None for check in report.checks)
    if failed:
        return "failed", f"Failed {failed} of {len(report.checks)} checks"
    if not report.passed:
        return "failed", "Nothing could be measured"
    if unmeasured:
        return "unknown", f"Passed, but {unmeasured} of {len(report.checks)} checks could not be measured"
    return "passed", f"Passed all {len(report.checks)} checks"


def _summary(report: ValidationReport, shipped: Role) -> str:
    """The result in two sentences: what became of the answer, and of the reason."""
    comparison = report.comparisons[shipped]
    answer = (
        f"The {WORDS[shipped]} gives the PyTorch student’s answer on <b>{percent(comparison.agreement)}</b> of images"
    )
    if comparison.top1_drop_points is not None:
        change = points(-comparison.top1_drop_points)
        answer += f" and is right on <b>{percent(comparison.top1_candidate)}</b> ({change} points)"
    if comparison.maps is None:
        return f"{answer}. It gives no saliency map, so nothing is known of its reasons."
    maps = comparison.maps
    return (
        f"{answer}. Its maps agree with the student’s at r = <b>{correlation(maps.pearson_mean)}</b> in the mean and "
        f"<b>{correlation(maps.pearson_p5)}</b> at the 5th percentile; maps of different images agree at "
        f"{correlation(maps.floor_pearson)}."
    )


def _check(check: Check) -> str:
    outcome, mark = _OUTCOMES[check.passed]
    bound = "" if check.passed is None else f"{_RELATIONS[check.relation]} {asked_for(check).split(' ', 1)[1]}"
    return (
        f'<li class="{outcome}"><span class="mark" aria-label="{outcome}">{mark}</span>'
        f'<span class="what">{escape(check.name)}</span><span class="found">{escape(found(check))}</span>'
        f'<span class="bound">{bound}</span></li>'
    )


def _histograms(report: ValidationReport, evidence: Evidence) -> str:
    shown = [
        (role, scores, comparison.maps.floor_pearson)
        for role, scores in evidence.pearson.items()
        if (comparison := report.comparisons[role]).maps is not None
    ]
    if not shown:
        return '<p class="none">The model files give no saliency maps.</p>'
    low = lower_end([value for _, scores, floor in shown for value in (*scores, floor)])
    return "".join(
        f"<figure><figcaption>{TITLES[role]} <small>with {WORDS[REFERENCE[role]]}</small>"
        f"</figcaption>{histogram(scores, floor, low)}</figure>"
        for role, scores, floor in shown
    )


def _files(report: ValidationReport) -> str:
    rows = (
        f'<tr><th scope="row">{escape(facts.name)}</th><td>{megabytes(facts.bytes)}</td>'
        f"<td><code>sha256 {facts.sha256}</code></td></tr>"
        for facts in report.models.values()
        if facts.sha256 is not None
    )
    return f'<table class="files">{"".join(rows)}</table>'

"""Assembly of the report page from its parts and the template."""

import re
from pathlib import Path

from markupsafe import Markup

from kdedge_export.html.page import render
from kdedge_export.html.text import NONE
from kdedge_export.metrics import map_similarity
from kdedge_export.metrics.confidence import unseen_share
from kdedge_export.metrics.sanity import Sanity, Test
from kdedge_export.validation.check import Check, Outcome, applicable, inconclusive
from kdedge_export.validation.page.histogram import histogram, lower_end
from kdedge_export.validation.page.quantization_section import quantization_sections
from kdedge_export.validation.page.sample_choice import choose
from kdedge_export.validation.page.sample_gallery import gallery_rows, lowest_and_highest
from kdedge_export.validation.report import ValidationReport
from kdedge_export.validation.samples import SampleGallery
from kdedge_export.validation.text_report import bound_text, found, plain_speed, spread
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.precision import FP32
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.files import atomic_write

__all__ = ["render_page", "write_page"]

_OUTCOMES: dict[Outcome, tuple[str, str]] = {
    "passed": ("passed", "✓"),
    "failed": ("failed", "✕"),
    "inconclusive": ("unknown", "?"),
    "not measured": ("unknown", "–"),
    "not applicable": ("inapplicable", ""),
}
_BASELINES = {"center": "Center prior", "random": "Random maps", "edges": "Edge maps (Sobel)"}
_SANITY_TESTS: dict[Test, str] = {"class": "Another class", "sample": "Another sample", "head": "A random head"}


def render_page(report: ValidationReport, evidence: SampleGallery) -> str:
    """Render the page as self-contained HTML without scripts, below about 6 MB."""
    outcome, headline = _verdict(report)
    places, faith = report.localization, report.faithfulness
    return render(
        "kdedge_export.validation.page",
        "report.html",
        report=report,
        evidence=evidence,
        outcome=outcome,
        headline=headline,
        created=report.created.replace("T", " ").replace("+00:00", " UTC"),
        notes=_notes(report),
        checks=sorted(report.checks, key=_urgency),
        constant_maps={role: _constant_maps(role, evidence) for role in report.models},
        map_sources=list(dict.fromkeys([*(places.rows if places else {}), *(faith.rows if faith else {})])),
        sanity=_sanity(report),
        speeds=_speeds(report),
        quantizations=quantization_sections(report),
        TITLES={candidate.name: candidate.title for candidate in report.candidates},
        WORDS={candidate.name: candidate.words for candidate in report.candidates},
        histograms=_histograms(report, evidence),
        pairs=lowest_and_highest(evidence),
        gallery=[(section, gallery_rows(section, evidence)) for section in choose(evidence)],
        **_WORDING,
    )


def write_page(report: ValidationReport, evidence: SampleGallery, path: Path) -> None:
    """Write `report.html` atomically."""
    atomic_write(path, render_page(report, evidence))


def _verdict(report: ValidationReport) -> tuple[str, str]:
    outcomes = [check.outcome for check in applicable(report.checks)]
    failed, unmeasured = outcomes.count("failed"), outcomes.count("not measured")
    few, undecided = inconclusive(report.checks)
    if failed:
        return "failed", f"Failed {failed} of {len(outcomes)} checks"
    if few or undecided:
        return "unknown", f"Undecided: {_unshown(few, undecided, report)}"
    if not report.passed:
        return "failed", "Nothing could be measured"
    if unmeasured:
        return "unknown", f"Passed, but {unmeasured} of {len(outcomes)} checks could not be measured"
    return "passed", f"Passed all {len(outcomes)} checks" + (
        " that apply" if len(outcomes) < len(report.checks) else ""
    )


def _unshown(few: int, undecided: int, report: ValidationReport) -> str:
    """Describe what would settle the inconclusive checks: more samples, or none."""
    of = f"of {len(applicable(report.checks))} checks"
    more = f"need{'s' if few == 1 else ''} more than {counted(report.samples, 'sample')}"
    if not undecided:
        return f"{few} {of} {more}"
    others = f"{undecided} {of} would not be settled by more samples"
    return f"{others}; {few} {more}" if few else others


def _notes(report: ValidationReport) -> list[str]:
    notes = list(report.notes)
    if report.quick:
        notes.append("faithfulness and robustness were skipped (--quick)")
    compared = report.comparisons.get(report.shipped.name)
    if compared is not None and compared.agreement == 1.0:
        unseen = f"changes on up to {100 * unseen_share(report.samples):.3g}% of unseen samples cannot be excluded"
        notes.append(f"no prediction changed on {counted(report.samples, 'sample')}: {unseen}")
    return notes


def _urgency(check: Check) -> int:
    """Return the sort key of a check; those that did not pass come first."""
    return {"failed": 0, "inconclusive": 1, "not applicable": 3}.get(check.outcome, 2)


def _minus(figures: str) -> str:
    """Replace hyphens in the figures of the checklist, which a terminal shows as well, by minus signs."""
    return re.sub(r"-(?=\d)", "−", figures)


def _histograms(report: ValidationReport, evidence: SampleGallery) -> list[tuple[Candidate, Candidate, Markup | None]]:
    """Return each candidate with maps, its reference, and the histogram of their agreement."""
    shown = [
        (candidate, against, evidence.pearson[candidate.name], comparison.maps.shuffled_pearson)
        for candidate in report.candidates
        if (against := report.references[candidate.name]) is not None
        and candidate.name in evidence.pearson
        and (comparison := report.comparisons[candidate.name]).maps is not None
    ]
    low = lower_end([value for *_, scores, floor in shown for value in (*scores, floor)])
    return [(candidate, against, histogram(scores, floor, low)) for candidate, against, scores, floor in shown]


def _constant_maps(role: str, evidence: SampleGallery) -> str:
    maps = evidence.predictions[role].maps
    return NONE if maps is None else str(int(map_similarity.is_constant(maps).sum()))


def _sanity(report: ValidationReport) -> dict[str, object] | None:
    """Arrange the sanity checks as one row per model and one column per test."""
    if report.sanity is None:
        return None
    rows: dict[str, dict[Test, Sanity]] = {}
    for row in report.sanity.rows:
        rows.setdefault(row.model, {})[row.test] = row
    tests = [test for test in _SANITY_TESTS if any(test in found for found in rows.values())]
    return {"samples": report.sanity.samples, "tests": tests, "rows": rows}


def _speeds(report: ValidationReport) -> list[str]:
    """Describe the speedup over fp32 on this machine, and at export if a file records it."""
    if (fp32 := report.footprints.get(FP32.name)) is None:
        return []
    described = []
    for name, footprint in report.footprints.items():
        if name == FP32.name:
            continue
        described.append(plain_speed(name, fp32.latency_ms, footprint.latency_ms, "here"))
        noted = (report.models[name].quantization or {}).get("latency_ms")
        if isinstance(noted, dict) and {FP32.name, name} <= noted.keys():
            where = f"at export, on {noted['machine']}" if "machine" in noted else "at export"
            described.append(plain_speed(name, float(noted[FP32.name]), float(noted[name]), where))
    return described


_WORDING: dict[str, object] = {
    "marks": _OUTCOMES,
    "found": lambda check: _minus(found(check)),
    "spread": lambda check: _minus(spread(check)),
    "bound_text": bound_text,
    "BASELINES": _BASELINES,
    "SANITY_TESTS": _SANITY_TESTS,
}
"""Functions and names for the templates."""

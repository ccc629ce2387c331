"""Assembly of the report page from its parts and the template."""

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from kdedge_export.candidates import TITLES, WORDS, Role, reference
from kdedge_export.html.shell import shell
from kdedge_export.html.text import correlation, escape, megabytes, percent, points
from kdedge_export.metrics.confidence import unseen_share
from kdedge_export.validation.check import Check, Outcome, applicable, inconclusive
from kdedge_export.validation.page.histogram import histogram, lower_end
from kdedge_export.validation.page.image_choice import choose
from kdedge_export.validation.page.image_gallery import gallery
from kdedge_export.validation.page.map_pairs import lost_and_kept
from kdedge_export.validation.page.model_table import model_table
from kdedge_export.validation.page.quantization_section import quantization
from kdedge_export.validation.page.sampled_sections import studies
from kdedge_export.validation.report import ValidationReport
from kdedge_export.validation.samples import SampleGallery
from kdedge_export.validation.text_report import asked_for, found, spread
from kdedge_runtime.util.files import atomic_write

__all__ = ["render_page", "write_page"]

_OUTCOMES: dict[Outcome, tuple[str, str]] = {
    "passed": ("passed", "✓"),
    "failed": ("failed", "✕"),
    "inconclusive": ("unknown", "?"),
    "not measured": ("unknown", "–"),
    "not applicable": ("unasked", ""),
}
_HISTOGRAMS_LEAD = (
    '<p class="lead">Pearson correlation of each image’s raw map with its reference’s, for the same class. The ticks '
    "under the axis mark the 24 images with the lowest agreement. Shuffled maps of different images give the level "
    "of chance and center bias.</p>"
)
_RELATIONS = {">=": "≥", "<=": "≤"}


def render_page(report: ValidationReport, evidence: SampleGallery) -> str:
    """Render the page as self-contained HTML without scripts, below about 6 MB."""
    outcome, headline = _verdict(report)
    template = Template(files("kdedge_export.validation.page").joinpath("report.html.tmpl").read_text("utf-8"))
    body = template.substitute(
        outcome=outcome,
        headline=headline,
        summary=_summary(report, evidence.shipped),
        notes="".join(f"<li>{escape(note)}</li>" for note in _notes(report)),
        data=escape(report.data.description or "unnamed data"),
        images=f"{report.images} image{'' if report.images == 1 else 's'}",
        created=escape(report.created.replace("T", " ").replace("+00:00", " UTC")),
        origin_of_maps=WORDS[evidence.origin],
        checks="".join(_check(check) for check in sorted(report.checks, key=_urgency)),
        table=model_table(report, evidence),
        studies=studies(report) + quantization(report),
        pairs=lost_and_kept(evidence),
        histograms=_histograms(report, evidence),
        gallery=gallery(choose(evidence), evidence),
        origin=_origin(report),
        versions=" · ".join(escape(f"{name} {value}") for name, value in report.versions.items()),
    )
    return shell(f"{headline} – kdedge validation", body)


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
        return "unknown", f"Not shown: {_unshown(few, undecided, report)}"
    if not report.passed:
        return "failed", "Nothing could be measured"
    if unmeasured:
        return "unknown", f"Passed, but {unmeasured} of {len(outcomes)} checks could not be measured"
    return "passed", f"Passed all {len(outcomes)} checks" + (
        " that apply" if len(outcomes) < len(report.checks) else ""
    )


def _unshown(few: int, undecided: int, report: ValidationReport) -> str:
    """Describe what would settle the inconclusive checks: more images, or none."""
    of = f"of {len(applicable(report.checks))} checks"
    more = f"need{'s' if few == 1 else ''} more than {report.images:,} image{'' if report.images == 1 else 's'}"
    if not undecided:
        return f"{few} {of} {more}"
    others = f"{undecided} {of} would not be settled by more images"
    return f"{others}; {few} {more}" if few else others


def _notes(report: ValidationReport) -> list[str]:
    notes = list(report.notes)
    if report.quick:
        notes.append("faithfulness and robustness were skipped (--quick)")
    compared = report.comparisons.get(report.shipped)
    if compared is not None and compared.agreement == 1.0:
        unseen = f"changes on up to {100 * unseen_share(report.images):.3g} % of unseen images cannot be excluded"
        notes.append(f"no prediction changed on {report.images:,} images: {unseen}")
    return notes


def _summary(report: ValidationReport, shipped: Role) -> str:
    """Summarize the result in two sentences: predictions and saliency maps."""
    comparison, first = report.comparisons.get(shipped), WORDS[report.origin]
    if comparison is None:
        top1 = report.models[shipped].top1
        right = "" if top1 is None else f"has a top-1 accuracy of <b>{percent(top1)}</b> and "
        return f"The {WORDS[shipped]} {right}has no reference to compare it with."
    prediction = (
        f"The {WORDS[shipped]} and the {first} predict the same class on <b>{percent(comparison.agreement)}</b> of "
        "images"
    )
    if comparison.top1_drop_points is not None:
        change = points(-comparison.top1_drop_points)
        prediction += f". Its top-1 accuracy is <b>{percent(comparison.top1_candidate)}</b> ({change} points)"
        if report.data.chose_epoch:
            prediction += ", on images used to select the student’s epoch"
    if comparison.maps is None:
        return f"{prediction}. It has no saliency map."
    maps = comparison.maps
    return (
        f"{prediction}. The maps of both correlate at r = <b>{correlation(maps.pearson_mean)}</b> on average and at "
        f"<b>{correlation(maps.pearson_p5)}</b> at the 5th percentile; maps of different images correlate at "
        f"{correlation(maps.floor_pearson)}."
    )


def _urgency(check: Check) -> int:
    """Return the sort key of a check; those that did not pass come first."""
    return {"failed": 0, "inconclusive": 1, "not applicable": 3}.get(check.outcome, 2)


def _check(check: Check) -> str:
    outcome, mark = _OUTCOMES[check.outcome]
    bound = "" if check.passed is None else f"{_RELATIONS[check.relation]} {asked_for(check).split(' ', 1)[1]}"
    interval = f' <span class="ci">{_minus(spread(check))}</span>' if check.interval is not None else ""
    why = {"inconclusive": "inconclusive ", "failed": ""}.get(check.outcome)
    reason = "" if why is None or check.reason is None else f'<span class="why">{why}{escape(check.reason)}</span>'
    unmeasured = " unmeasured" if check.passed is None else ""
    return (
        f'<li class="{outcome}{unmeasured}"><span class="mark" aria-label="{check.outcome}">{mark}</span>'
        f'<span class="what">{escape(check.name)}</span>'
        f'<span class="found">{_minus(escape(found(check)))}{interval}</span>'
        f'<span class="bound">{bound}</span>{reason}</li>'
    )


def _minus(figures: str) -> str:
    """Replace hyphens in the figures of the checklist, which a terminal shows as well, by minus signs."""
    return re.sub(r"-(?=\d)", "−", figures)


def _histograms(report: ValidationReport, evidence: SampleGallery) -> str:
    shown = [
        (role, scores, comparison.maps.floor_pearson)
        for role, scores in evidence.pearson.items()
        if (comparison := report.comparisons[role]).maps is not None
    ]
    if not report.comparisons:
        return ""
    head = f"<h2>Agreement of the maps by image</h2>{_HISTOGRAMS_LEAD}"
    if not shown:
        return f'{head}<p class="none">The model files have no saliency maps.</p>'
    low = lower_end([value for _, scores, floor in shown for value in (*scores, floor)])
    figures = "".join(
        f"<figure><figcaption>{TITLES[role]} <small>with {WORDS[against]}</small></figcaption>"
        f"{histogram(scores, floor, low)}</figure>"
        for role, scores, floor in shown
        if (against := reference(role, report.models)) is not None
    )
    return f'{head}<div class="histograms">{figures}</div>'


def _origin(report: ValidationReport) -> str:
    """Render the provenance table: names, sizes and checksums of models and data."""
    rows = [
        (f"{TITLES[role]}: {escape(facts.name)}", f"{megabytes(facts.bytes)}", f"sha256 {facts.sha256}")
        for role, facts in report.models.items()
        if facts.sha256 is not None
    ]
    if report.data.fingerprint is not None:
        count = f"{report.images:,} images"
        rows.append((escape(report.data.description), count, f"fingerprint {report.data.fingerprint}"))
    rows += [
        (
            f"{TITLES[role]}: calibrated on",
            f"{escape(str(facts.quantization.get('calibration_images', '?')))} images",
            f"sha256 {escape(str(facts.quantization['calibration_sha256']))}",
        )
        for role, facts in report.models.items()
        if facts.quantization is not None and "calibration_sha256" in facts.quantization
    ]
    positions = (
        f'<tr><th scope="row">{what}</th><td>{size}</td><td><code>{code}</code></td></tr>' for what, size, code in rows
    )
    return f'<table class="files">{"".join(positions)}</table>'

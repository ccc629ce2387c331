"""HTML table that compares the models."""

from kdedge_export.candidates import TITLES, WORDS, Role, reference
from kdedge_export.html.text import correlation, escape, megabytes, points, quantity
from kdedge_export.metrics import agreement
from kdedge_export.validation.page.html_table import correlation_cell, percent_cell, with_interval
from kdedge_export.validation.report import ValidationReport
from kdedge_export.validation.samples import SampleGallery

__all__ = ["model_table"]

_GROUPS = (("", 2), ("predictions", 3), ("maps", 6))
_COLUMNS = (
    ("Model", "measured model and its reference"),
    ("Size", "size of the file; of the weights for a PyTorch module"),
    ("Top-1", "accuracy, and the difference to the reference in points"),
    ("Agreement", "fraction of images with the reference's prediction"),
    ("KL", "mean KL divergence of the softmax from the reference's, in nats"),
    ("Pearson", "mean correlation of the maps with the reference's"),
    ("p5", "5th percentile of the correlation: 5 % of maps agree less"),
    ("p1", "1st percentile of the correlation"),
    ("IoU", "overlap of the 20 % of positions with the largest values; 0.11 by chance"),
    ("Shuffled", "correlation with the maps of other images: the level of chance and center bias"),
    ("Constant", "number of images whose map is constant"),
)


def model_table(report: ValidationReport, evidence: SampleGallery) -> str:
    """Render one row per model: teacher, student, fp32, int8, as far as present."""
    groups = "".join(f'<th colspan="{span}" scope="colgroup"><span>{title}</span></th>' for title, span in _GROUPS)
    heads = "".join(f'<th scope="col" title="{escape(meaning)}">{name}</th>' for name, meaning in _COLUMNS)
    rows = "".join(_row(role, report, evidence) for role in report.models)
    return (
        f'<div class="scroll"><table><thead><tr class="groups">{groups}</tr><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(role: Role, report: ValidationReport, evidence: SampleGallery) -> str:
    facts = report.models[role]
    held = reference(role, report.models)
    against = "" if held is None else f" vs. {WORDS[held]}"
    predictions = [_top1(role, report), *_predictions(role, report)]
    positions = [megabytes(facts.bytes), *predictions, *_maps(role, report), _constant(role, evidence)]
    name = f'{TITLES[role]}<br><span class="soft">{escape(facts.name)}{against}</span>'
    return f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{position}</td>" for position in positions) + "</tr>"


def _top1(role: Role, report: ValidationReport) -> str:
    facts = report.models[role]
    shown = percent_cell(facts.top1, facts.top1_interval)
    if report.data.chose_epoch and role != "teacher" and facts.top1 is not None:
        shown += (
            '<br><span class="soft" title="the interval does not account for this selection">on images that selected '
            "the epoch</span>"
        )
    comparison = report.comparisons.get(role)
    if comparison is None or comparison.top1_drop_points is None:
        return shown
    change, drop = points(-comparison.top1_drop_points), comparison.intervals["top1_drop_points"]
    ends = "" if drop is None else f" ({points(-drop.high)} to {points(-drop.low)})"
    return f'{shown}<br><span class="ci">{change}{ends}</span>'


def _predictions(role: Role, report: ValidationReport) -> list[str]:
    comparison = report.comparisons.get(role)
    if comparison is None:
        return ["", ""]
    interval = comparison.intervals["kl"]
    kl = "&lt; 0.0001" if comparison.kl < 1e-4 else quantity(comparison.kl, 4)
    if interval is not None and comparison.kl >= 1e-4:
        kl = with_interval(kl, quantity(interval.low, 4), quantity(interval.high, 4))
    return [percent_cell(comparison.agreement, comparison.intervals["agreement"]), kl]


def _maps(role: Role, report: ValidationReport) -> list[str]:
    comparison = report.comparisons.get(role)
    if comparison is None:
        return [""] * 5
    maps = comparison.maps
    if maps is None:
        return [correlation(None)] * 5
    names = ("pearson_mean", "pearson_p5", "pearson_p1", "top20_iou_mean", "floor_pearson")
    return [correlation_cell(getattr(maps, name), maps.intervals[name]) for name in names]


def _constant(role: Role, evidence: SampleGallery) -> str:
    maps = evidence.predictions[role].maps
    return correlation(None) if maps is None else str(int(agreement.is_constant(maps).sum()))

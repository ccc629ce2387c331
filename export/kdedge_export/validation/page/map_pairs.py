"""Side-by-side maps with the lowest and the highest agreement."""

import numpy as np

from kdedge_export.candidates import WORDS, Role
from kdedge_export.html.text import correlation, short
from kdedge_export.html.thumbnails import overlay_uri
from kdedge_export.validation.samples import SampleGallery

__all__ = ["lost_and_kept"]

_PAIRS = 3


def lost_and_kept(evidence: SampleGallery) -> str:
    """Render the images with the lowest and highest map agreement with the source model; "" without maps."""
    role = evidence.shipped
    scores = evidence.pearson.get(role, np.array([]))
    ranked = [int(row) for row in np.argsort(scores, kind="stable") if not np.isnan(scores[row])]
    if len(ranked) < 2 * _PAIRS:
        return ""
    halves = ("Lowest agreement", ranked[:_PAIRS]), ("Highest agreement", ranked[: -_PAIRS - 1 : -1])
    lead = f"Images on which the maps of the {WORDS[evidence.origin]} and the deployed file agree least and most."
    shown = "".join(_half(title, rows, role, evidence) for title, rows in halves)
    return (
        f'<h2>Maps with the lowest and highest agreement</h2><p class="lead">{lead}</p><div '
        f'class="halves">{shown}</div>'
    )


def _half(title: str, rows: list[int], role: Role, evidence: SampleGallery) -> str:
    heads = f'<div class="pair heads-of-pair"><span>{WORDS[evidence.origin]}</span><span>{WORDS[role]}</span></div>'
    return f"<div><h3>{title}</h3>{heads}{''.join(_pair(row, role, evidence) for row in rows)}</div>"


def _pair(row: int, role: Role, evidence: SampleGallery) -> str:
    images = []
    sides: tuple[Role, Role] = (evidence.origin, role)
    for one in sides:
        maps = evidence.predictions[one].maps
        assert maps is not None
        uri = overlay_uri(evidence.images[row], maps[row], evidence.shifts.get(one, (0.0, 0.0)))
        images.append(f'<img src="{uri}" alt="Map of the {WORDS[one]}" decoding="async">')
    caption = f"{short(evidence.names[row])} · r = {correlation(float(evidence.pearson[role][row]))}"
    return f'<figure class="pair">{"".join(images)}<figcaption>{caption}</figcaption></figure>'

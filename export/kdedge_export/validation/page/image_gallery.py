"""Gallery of images with the prediction and saliency map of every model."""

import math

from kdedge_export.candidates import TITLES, WORDS, Role, reference
from kdedge_export.html.figure import figure
from kdedge_export.html.text import correlation, escape, percent, short
from kdedge_export.html.thumbnails import image_uri, overlay_uri
from kdedge_export.metrics import agreement
from kdedge_export.validation.page.image_choice import Section
from kdedge_export.validation.samples import SampleGallery

__all__ = ["gallery"]


def gallery(sections: list[Section], evidence: SampleGallery) -> str:
    """Render all sections as HTML with embedded images."""
    return "".join(_section(section, evidence) for section in sections)


def _section(section: Section, evidence: SampleGallery) -> str:
    titles = "".join(f"<span>{title}</span>" for title in ("Image", *(TITLES[role] for role in evidence.predictions)))
    rows = "".join(_row(number, evidence) for number in section.rows)
    return (
        f'<section class="gallery" style="--columns:{1 + len(evidence.predictions)}">'
        f"<h3>{section.title} <small>{len(section.rows)}</small></h3><p>{section.note}</p>"
        f'<div class="heads" aria-hidden="true">{titles}</div>{rows}</section>'
    )


def _row(number: int, evidence: SampleGallery) -> str:
    positions = "".join(_position(role, number, evidence) for role in evidence.predictions)
    return f'<div class="row">{_original(number, evidence)}{positions}</div>'


def _original(number: int, evidence: SampleGallery) -> str:
    name = evidence.names[number]
    explained = evidence.labels[evidence.explained_class[number]]
    truth = "" if evidence.targets is None else f"target <b>{escape(evidence.labels[evidence.targets[number]])}</b>"
    lines = [f'<span class="name">{short(name)}</span>', truth, f"maps for <b>{escape(explained)}</b>"]
    caption = "<br>".join(line for line in lines if line)
    return figure("Image", image_uri(evidence.images[number]), name, caption)


def _position(role: Role, number: int, evidence: SampleGallery) -> str:
    predictions = evidence.predictions[role]
    probabilities = evidence.probabilities[role][number]
    prediction = int(agreement.top1(predictions.logits[number : number + 1])[0])
    label = "no prediction" if prediction < 0 else evidence.labels[prediction]
    # Text, not only color, so that it is readable in grayscale and for color-blind users.
    tags = []
    if prediction != evidence.explained_class[number]:
        tags.append(f'<em class="changed">{"differs" if role == "teacher" else "changed"}</em>')
    if evidence.targets is not None and prediction != evidence.targets[number]:
        tags.append('<em class="wrong">wrong</em>')
    sure = "" if prediction < 0 else percent(float(probabilities[prediction]), 0)
    lines = [" ".join([f"<b>{escape(label)}</b>", sure, *tags])]
    against = reference(role, evidence.predictions)
    if against is not None and role in evidence.pearson:
        lines.append(f'<span class="r">{_agreement(against, float(evidence.pearson[role][number]))}</span>')
    shift = evidence.shifts.get(role, (0.0, 0.0))
    uri = None if predictions.maps is None else overlay_uri(evidence.images[number], predictions.maps[number], shift)
    return figure(TITLES[role], uri, f"Map of {TITLES[role]} for {evidence.names[number]}", "<br>".join(lines))


def _agreement(against: Role, score: float) -> str:
    if math.isnan(score):
        return "both maps constant"
    bar = f'<i style="--r:{max(score, 0.0):.3f}"></i>'
    return f'{bar}r = {correlation(score)} <span class="with">with {WORDS[against]}</span>'

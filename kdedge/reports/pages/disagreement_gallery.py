"""Images on which models differ, with each model's prediction and map."""

from collections.abc import Mapping, Sequence

import numpy as np

from kdedge.pipelines.disagreement import disagreement, most_informative
from kdedge.pipelines.run_predictions import RunPredictions
from kdedge.reports.pages.run_styles import RunStyle, swatch
from kdedge_export.html.figure import figure
from kdedge_export.html.text import escape, percent, short
from kdedge_export.html.thumbnails import image_uri, overlay_uri
from kdedge_export.metrics import agreement
from kdedge_runtime.util.arrays import Pixels

__all__ = ["gallery"]

_MOST_POSITIONS = 150
_FEWEST_ROWS, _MOST_ROWS = 3, 8
_FEW_MODELS = 5
"""Maximum number of models for which the images are drawn large."""


def gallery(runs: Sequence[RunPredictions], teachers: Sequence[RunPredictions], looks: Mapping[str, RunStyle]) -> str:
    """Return one row per image: the image, then each model's map of the ground-truth class. Empty for a single model.

    Args:
        runs: Predictions of the runs, all on the same images.
        teachers: Predictions of their teachers on the same images.
        looks: Color and line style of each run, by name.
    """
    models = [*teachers, *runs]
    if len(models) < 2:
        return ""
    compared = runs if len(runs) > 1 else models
    predictions = [agreement.top1(one.predictions.logits) for one in compared]
    maps = [one.predictions.maps for one in compared if one.predictions.maps is not None]
    scores = disagreement(predictions, maps)
    count = max(_FEWEST_ROWS, min(_MOST_ROWS, _MOST_POSITIONS // (1 + len(models))))
    rows = most_informative(scores, runs[0].images.targets, count)
    return "".join(_row(number, runs[0], models, looks) for number in rows)


def _row(number: int, baseline: RunPredictions, models: Sequence[RunPredictions], looks: Mapping[str, RunStyle]) -> str:
    images = baseline.images
    name, label = images.names[number], images.labels[images.targets[number]]
    caption = f'<b>{escape(label)}</b><br><span class="name">{short(name, 20)}</span>'
    original = figure("picture", image_uri(images.images[number]), name, caption)
    positions = "".join(_position(number, images.images[number], model, looks) for model in models)
    least = 122 if len(models) > _FEW_MODELS else 190
    return f'<div class="row models" style="--least:{least}px">{original}{positions}</div>'


def _position(number: int, image: Pixels, model: RunPredictions, looks: Mapping[str, RunStyle]) -> str:
    logits, maps = model.predictions.logits[number].astype(np.float64), model.predictions.maps
    prediction = int(agreement.top1(model.predictions.logits[number : number + 1])[0])
    wrong = "" if prediction == model.right[number] else ' <em class="wrong">wrong</em>'
    if prediction < 0:
        words = f"no prediction{wrong}"
    else:
        probability = float(1 / np.exp(logits - logits[prediction]).sum())
        words = f"<b>{escape(model.labels[prediction])}</b> {percent(probability, 0)}{wrong}"
    look = looks.get(model.title)
    title = f"{'' if look is None else swatch(look)} {short(model.title, 20)}"
    uri = None if maps is None else overlay_uri(image, maps[number])
    return figure(title, uri, f"Map of {model.title} for {model.images.names[number]}", words)

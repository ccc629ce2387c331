"""Samples on which models differ, with each model's prediction and map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdedge.pipelines.disagreement import disagreement, most_informative
from kdedge.pipelines.run_predictions import RunPredictions
from kdedge_export.metrics import agreement
from kdedge_export.modalities import modality_of
from kdedge_runtime.util.arrays import Integers

__all__ = ["ComparedSample", "RunMap", "disagreement_gallery"]

_MOST_POSITIONS = 150
_FEWEST_ROWS, _MOST_ROWS = 3, 8


@dataclass(frozen=True)
class RunMap:
    """Prediction and map of one model for one sample."""

    title: str
    """Name of the run or teacher."""
    label: str | None
    """Label of the prediction; None without one."""
    probability: float
    """Probability of the prediction, in [0, 1]."""
    is_wrong: bool
    map: str | None
    """Overlay as a data URI; None without a map."""


@dataclass(frozen=True)
class ComparedSample:
    """One sample with the results of all models."""

    name: str
    label: str
    image: str
    """Thumbnail as a data URI."""
    cells: tuple[RunMap, ...]


def disagreement_gallery(runs: Sequence[RunPredictions], teachers: Sequence[RunPredictions]) -> list[ComparedSample]:
    """Return the samples with each model's map of the ground-truth class. Empty for a single model.

    Args:
        runs: predictions of the runs, all on the same samples.
        teachers: predictions of their teachers on the same samples.
    """
    models = [*teachers, *runs]
    if len(models) < 2:
        return []
    compared = runs if len(runs) > 1 else models
    predictions = _classes(compared)
    maps = [one.predictions.maps for one in compared if one.predictions.maps is not None]
    if len({one.samples.input.column_names for one in compared}) > 1:
        maps = []  # their positions are different columns
    scores = disagreement(predictions, maps)
    count = max(_FEWEST_ROWS, min(_MOST_ROWS, _MOST_POSITIONS // (1 + len(models))))
    rows = most_informative(scores, runs[0].samples.targets, count)
    samples = runs[0].samples
    modality = modality_of(samples.input)
    return [
        ComparedSample(
            name=samples.names[row],
            label=samples.labels[samples.targets[row]],
            image=modality.figure_uri(modality.thumbnail(samples.samples[row])),
            cells=tuple(_cell(row, model) for model in models),
        )
        for row in rows
    ]


def _classes(models: Sequence[RunPredictions]) -> list[Integers]:
    """Return the top-1 classes of each model, `[N]`, as indices into the labels of all; -1 without a prediction."""
    found = [agreement.top1(one.predictions.logits) for one in models]
    if len({one.labels for one in models}) == 1:  # two classes may have the same name
        return found
    labels = dict.fromkeys(label for one in models for label in one.labels)
    numbers = {label: number for number, label in enumerate(labels)}
    # The last entry is that of the index -1.
    return [
        np.array([*(numbers[label] for label in one.labels), -1])[classes]
        for one, classes in zip(models, found, strict=True)
    ]


def _cell(row: int, model: RunPredictions) -> RunMap:
    logits, maps = model.predictions.logits[row].astype(np.float64), model.predictions.maps
    modality = modality_of(model.samples.input)
    prediction = int(agreement.top1(model.predictions.logits[row : row + 1])[0])
    return RunMap(
        title=model.title,
        label=None if prediction < 0 else model.labels[prediction],
        probability=0.0 if prediction < 0 else float(1 / np.exp(logits - logits[prediction]).sum()),
        is_wrong=prediction != model.right[row],
        map=None
        if maps is None
        else modality.figure_uri(modality.overlay(model.samples.samples[row], maps[row], (0.0, 0.0))),
    )

"""Samples on which models differ, with each model's prediction and map."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdedge.pipelines.disagreement import disagreement, most_informative
from kdedge.pipelines.run_predictions import RunPredictions
from kdedge.reports.compared_outputs import PredictionText, outputs_of
from kdedge_export.modalities import modality_of

__all__ = ["ComparedSample", "RunMap", "disagreement_gallery"]

_MAX_POSITIONS = 150
_MIN_ROWS, _MAX_ROWS = 3, 8


@dataclass(frozen=True)
class RunMap:
    """Prediction and map of one model for one sample."""

    title: str
    """Name of the run or teacher."""
    prediction: PredictionText
    map: str | None
    """Overlay as a data URI; None without a map."""


@dataclass(frozen=True)
class ComparedSample:
    """One sample with the results of all models."""

    name: str
    target: str
    """Ground truth: label, or measured value with its unit."""
    image: str
    """Thumbnail as a data URI."""
    cells: tuple[RunMap, ...]


def disagreement_gallery(runs: Sequence[RunPredictions], teachers: Sequence[RunPredictions]) -> list[ComparedSample]:
    """Return the samples with each model's map of the ground-truth class or the value. Empty for a single model.

    Args:
        runs: predictions of the runs, all on the same samples.
        teachers: predictions of their teachers on the same samples.
    """
    models = [*teachers, *runs]
    if len(models) < 2:
        return []
    compared = runs if len(runs) > 1 else models
    outputs = outputs_of(runs[0].task)
    maps = [one.predictions.maps for one in compared if one.predictions.maps is not None]
    if len({one.samples.input.column_names for one in compared}) > 1:
        maps = []  # their positions are different columns
    scores = disagreement(outputs.differences(compared), maps)
    count = max(_MIN_ROWS, min(_MAX_ROWS, _MAX_POSITIONS // (1 + len(models))))
    samples = runs[0].samples
    rows = most_informative(scores, outputs.strata(samples), count)
    modality = modality_of(samples.input)
    # The columns of other schemas have other places.
    alike = [one.predictions.maps for one in models if one.samples.input.column_names == samples.input.column_names]
    drawn = [maps for maps in alike if maps is not None]
    return [
        ComparedSample(
            name=samples.names[row],
            target=outputs.target(samples, row),
            image=modality.figure_uri(modality.thumbnail(samples.samples[row], [each[row] for each in drawn])),
            cells=tuple(RunMap(model.title, outputs.prediction(model, row), _map(row, model)) for model in models),
        )
        for row in rows
    ]


def _map(row: int, model: RunPredictions) -> str | None:
    maps, modality = model.predictions.maps, modality_of(model.samples.input)
    if maps is None:
        return None
    return modality.figure_uri(modality.overlay(model.samples.samples[row], maps[row], (0.0, 0.0)))

"""Predictions without a model."""

from dataclasses import replace

import numpy as np

from kdedge_runtime.drawing.heatmap import HeatStats
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.modalities.image_region import ImageRegion
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sources.source import Frame


def toy_prediction(index: int = 0, name: str = "frame", shade: int = 0, captured_at: float = 0.0) -> Prediction:
    picture = np.full((48, 64, 3), shade, np.uint8)
    return Prediction(
        frame=Frame(index, picture, captured_at, name),
        ranking=(("sign, “stop”", 0.912345), ("tree", 0.05)),
        explained="tree",
        saliency_map=np.ones((2, 2), np.float32),
        heat=HeatStats(0.51234567, 0.25, 0.125, 0.5),
        task="classify",
        input=ImageInput(48, 64, (0.5,) * 3, (0.5,) * 3),
        age_ms=12.3456,
        overlay=picture,
    )


def undrawn_prediction(index: int) -> Prediction:
    return replace(toy_prediction(index), saliency_map=None, heat=None, skip_reason="cadence", overlay=None)


def in_regions(prediction: Prediction, **labels: str) -> Prediction:
    """Return the prediction of a frame with one region per label, side by side from left to right."""
    first, *further = (
        replace(
            prediction,
            region=ImageRegion(name, (index / len(labels), 0.0, (index + 1) / len(labels), 1.0)),
            ranking=((label, 0.75 - index / 4), *prediction.ranking[1:]),
        )
        for index, (name, label) in enumerate(labels.items())
    )
    return replace(first, further=tuple(further))

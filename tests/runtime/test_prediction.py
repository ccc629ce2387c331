"""Predictions of one frame: ranking, map, location and age."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay, heat_stats
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.modalities.image_region import parse_image_regions
from kdedge_runtime.model import Explanation, Model
from kdedge_runtime.prediction import decode_prediction
from kdedge_runtime.sources.source import Frame

FRAME = Frame(7, np.zeros((90, 160, 3), np.uint8), captured_at=100.25, name="a frame")
MAP = np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32)
EXPLANATION = Explanation(
    logits=np.zeros((1, 3), np.float32),
    scores=np.array([[0.25, 0.125, 0.625]], np.float32),
    explained_class=np.array([1]),
    saliency_map=MAP,
    display=MapDisplay(0.5, -0.25, 2.0),
)


def test_prediction_contains_ranking_map_and_age(model: Model) -> None:
    prediction = decode_prediction(model, FRAME, EXPLANATION, clock=lambda: 100.5)
    assert prediction.frame is FRAME
    assert (prediction.task, prediction.input) == (model.metadata.task, model.metadata.input)
    assert prediction.ranking == (("blue", 0.625), ("red", 0.25), ("green", 0.125))
    assert (prediction.label, prediction.score, prediction.explained) == ("blue", 0.625, "green")
    np.testing.assert_array_equal(prediction.saliency_map, MAP[0])
    box = model.metadata.input.visible_box(90, 160)
    assert prediction.heat == heat_stats(MAP[0], box, 90, 160, (0.5, -0.25))
    assert prediction.display == MapDisplay(0.5, -0.25, 2.0)
    assert prediction.age_ms == 250


def test_prediction_without_map_has_no_heat_stats(model: Model) -> None:
    prediction = decode_prediction(model, FRAME, replace(EXPLANATION, saliency_map=None, display=UNMEASURED))
    assert (prediction.saliency_map, prediction.heat, prediction.display) == (None, None, UNMEASURED)


def test_ties_are_ranked_in_label_order(write_model: Callable[..., Path]) -> None:
    many = Model.load(write_model(), threads=1)
    labels = tuple(f"{number}" for number in range(64))
    many = replace(many, metadata=replace(many.metadata, labels=labels))
    probabilities = np.tile(np.array([0.0, 1 / 32], np.float32), 32)[None]
    prediction = decode_prediction(many, FRAME, replace(EXPLANATION, logits=probabilities, scores=probabilities))
    assert [label for label, _ in prediction.ranking] == ["1", "3", "5"]


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("with_map", [False, True])
def test_non_finite_outputs_raise(model: Model, broken: float, with_map: bool) -> None:
    wrong = EXPLANATION.scores.copy()
    wrong[0, 1] = broken
    with pytest.raises(ModelFileError):
        decode_prediction(model, FRAME, replace(EXPLANATION, scores=wrong, saliency_map=MAP if with_map else None))
    odd = MAP.copy()
    odd[0, 3, 3] = broken
    with pytest.raises(ModelFileError):
        decode_prediction(model, FRAME, replace(EXPLANATION, saliency_map=odd))


def test_prediction_has_all_outputs_of_its_own_sample(model: Model) -> None:
    embedding = np.array([[0.6, 0.8], [0.0, 1.0]], np.float32)
    explanation = replace(
        EXPLANATION,
        logits=np.array([[0.5, -1.5, 2.5]], np.float32),
        familiarity=np.array([0.25, 0.75], np.float32),
        unknown=np.array([True, False]),
        embedding=embedding,
    )
    prediction = decode_prediction(model, FRAME, explanation)
    assert (prediction.familiarity, prediction.unknown, prediction.output) == (0.25, True, -1.5)
    np.testing.assert_array_equal(prediction.embedding, embedding[0])
    plain = decode_prediction(model, FRAME, EXPLANATION)
    assert (plain.familiarity, plain.unknown, plain.embedding) == (None, False, None)


def test_region_is_predicted_on_its_part(model: Model) -> None:
    door, window = parse_image_regions(["door=0,0,80,90", "window=80,0,160,90"])
    first = decode_prediction(model, FRAME, EXPLANATION, region=door)
    both = replace(first, further=(decode_prediction(model, FRAME, EXPLANATION, region=window),))
    assert (first.region_name, first.sample.shape) == ("door", (90, 80, 3))
    assert both.of_region(None) is both and both.of_region("door") is both
    assert both.of_region("window") is both.further[0]
    whole = decode_prediction(model, FRAME, EXPLANATION)
    assert whole.sample is FRAME.sample and whole.of_region(None) is whole
    for prediction, name, word in ((both, "attic", "door or window"), (whole, "door", "no regions")):
        with pytest.raises(UsageError, match=rf"'{name}'.*{word}"):
            prediction.of_region(name)

"""Live view over HTTP: settings that clients change."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from view_client import get, post

from kdedge_runtime.errors import UsageError
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.saliency_methods import methods_of
from kdedge_runtime.server.live_view import Controls, LiveView
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import LiveSettings
from kdedge_runtime.stream.statistics import RunProgress


def test_settings_change_atomically(view: LiveView, controls: Controls) -> None:
    reply = post(view, "/controls", {"class": "blue", "opacity": 0.25})
    assert reply == (200, {"class": "blue", "method": "cam", "opacity": 0.25})
    assert controls() == LiveSettings(class_index=2, opacity=0.25)
    for wrong in (
        {"opacity": 0.9, "class": "violet"},
        {"opacity": 1.1},
        {"opacity": True},
        {"opacity": 10**400},
        {"speed": 3},
        {"class": 1},
        {"method": "magic"},
    ):
        status, prediction = post(view, "/controls", wrong)
        assert status == 400, wrong
        assert prediction["error"]
        assert controls() == LiveSettings(class_index=2, opacity=0.25)
    assert post(view, "/controls", {"class": None})[1]["class"] is None


def test_method_can_replace_the_map_of_the_file(view: LiveView, controls: Controls) -> None:
    choices = json.loads(get(view, "/choices.json")[1])
    assert choices["labels"] == ["red", "green", "blue"]
    assert choices["methods"] == ["cam", *methods_of("perturbation")]
    status, prediction = post(view, "/controls", {"method": "scorecam"})
    assert (status, controls.method) == (400, "cam"), "this graph has no named activations"
    assert "target_activations" in prediction["error"] and "occlusion" in prediction["error"]
    assert post(view, "/controls", {"method": "occlusion"})[1]["method"] == "occlusion"
    assert controls().explainer is not None
    assert post(view, "/controls", {"method": "cam"})[1]["method"] == "cam"
    assert controls().explainer is None


def test_model_without_map_can_be_explained_with_a_method(write_model: Callable[..., Path]) -> None:
    controls = Controls(Model.load(write_model(method="none")), LiveSettings())
    with pytest.raises(UsageError, match="no saliency map"):
        controls.change({"class": "blue"})
    controls.change({"class": "blue", "method": "occlusion"})
    assert (controls.class_name, controls.method) == ("blue", "occlusion")


def test_run_applies_settings_per_frame(model: Model, red_spot: np.ndarray, tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(red_spot).save(tmp_path / f"{number:02}.png")
    controls = Controls(model, LiveSettings())
    predictions: list[Prediction] = []

    class Watcher:
        wants_overlay = True

        def write(self, prediction: Prediction, progress: RunProgress) -> None:
            predictions.append(prediction)
            if len(predictions) == 2:
                controls.change({"class": "blue", "opacity": 0.0})

    with ImageSource(tmp_path) as source:
        run(model, source, [Watcher()], live_settings=controls)
    assert [predictions[0].explained, predictions[-1].explained] == ["red", "blue"]
    heated = (slice(52, 108), slice(148, 204))
    assert np.abs(predictions[1].overlay[heated].astype(int) - predictions[2].overlay[heated]).mean() > 20, (
        "applied from the next frame"
    )

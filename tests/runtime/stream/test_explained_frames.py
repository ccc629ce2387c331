"""Main loop: explainers, cadence, budget, and settings that change during a run."""

import itertools
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_streams import Collector, Frames

from kdedge_runtime.explainers import MapEstimate
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.schedule import ExplainSchedule
from kdedge_runtime.stream.settings import LiveSettings, StreamSettings
from kdedge_runtime.stream.statistics import RunProgress


class Guess:
    """Explainer with a known map and duration."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self.requests: list[tuple[tuple[int, ...], int]] = []
        self._cost_s = cost_s

    def __call__(self, image: np.ndarray, class_index: int, progress: object = None) -> MapEstimate:
        self.requests.append((image.shape, class_index))
        time.sleep(self._cost_s)
        positions = np.zeros((4, 4), np.float32)
        positions[0, 3] = 1.0
        return MapEstimate(positions, np.zeros_like(positions), 1, 1e3 * self._cost_s)


def test_explainer_replaces_the_map_of_the_graph(model: Model, red_spot: np.ndarray) -> None:
    sink, guess = Collector(), Guess()
    summary = run(model, Frames(red_spot), [sink], live_settings=LiveSettings(explainer=guess))
    assert guess.requests == [((64, 64, 3), 0)]
    assert (sink.predictions[0].heat.cx, sink.predictions[0].heat.cy) == (0.875, 0.125)
    assert summary.stages["explanation"].count == 1


def test_explainer_supports_models_without_map_and_fixed_class(
    write_model: Callable[..., Path], red_spot: np.ndarray
) -> None:
    sink, guess = Collector(), Guess()
    run(
        Model.load(write_model(method="none")),
        Frames(red_spot),
        [sink],
        live_settings=LiveSettings(class_index=2, explainer=guess),
    )
    assert guess.requests == [((64, 64, 3), 2)]
    assert (sink.predictions[0].label, sink.predictions[0].explained) == ("red", "blue")


@pytest.mark.parametrize("explainer", [None, Guess()])
def test_cadence_limits_explanations_not_predictions(
    model: Model, red_spot: np.ndarray, explainer: Guess | None
) -> None:
    sink = Collector(wants_overlay=True)
    settings = StreamSettings(cadence=ExplainSchedule("every", every=3))
    summary = run(model, Frames(*[red_spot] * 7), [sink], settings, LiveSettings(explainer=explainer))
    explained = [prediction.saliency_map is not None for prediction in sink.predictions]
    assert explained == [True, False, False, True, False, False, True]
    assert [prediction.overlay is not None for prediction in sink.predictions] == explained
    assert [prediction.skip_reason for prediction in sink.predictions[:3]] == [None, "cadence", "cadence"]
    assert {prediction.label for prediction in sink.predictions} == {"red"}
    assert (summary.explained, summary.skipped) == (3, {"cadence": 4})
    assert "3 frames explained, 4 skipped by cadence" in summary.table()
    assert explainer is None or len(explainer.requests) == 3, "skipped explanations cost nothing"


def test_on_change_explains_new_labels(model: Model, red_spot: np.ndarray) -> None:
    blue = np.roll(red_spot, 2, axis=2)
    sink, guess = Collector(), Guess()
    settings = StreamSettings(cadence=ExplainSchedule("on-change"))
    run(model, Frames(red_spot, red_spot, blue, blue, red_spot), [sink], settings, LiveSettings(explainer=guess))
    assert [prediction.skip_reason is None for prediction in sink.predictions] == [True, False, True, False, True]
    assert [requests for _, requests in guess.requests] == [0, 2, 0]


def test_new_viewer_gets_an_explained_frame(model: Model, red_spot: np.ndarray) -> None:
    class Late(Collector):
        def write(self, prediction: Prediction, progress: RunProgress) -> None:
            super().write(prediction, progress)
            self.wants_overlay = progress.frames >= 10

    sink = Late()
    run(model, Frames(*[red_spot] * 20), [sink], StreamSettings(cadence=ExplainSchedule("on-change")))
    assert [prediction.overlay is not None for prediction in sink.predictions].count(True) == 1
    assert sum(prediction.skip_reason is None for prediction in sink.predictions) == 2, (
        "the first frame, and the first watched one"
    )


def test_over_budget_skips_explanations_not_frames(model: Model, red_spot: np.ndarray) -> None:
    sink, guess = Collector(), Guess(cost_s=0.1)
    live = LiveSettings(explainer=guess)
    summary = run(model, Frames(*[red_spot] * 30), [sink], StreamSettings(min_fps=50), live)
    assert [prediction.frame.index for prediction in sink.predictions] == list(range(30))
    assert sink.predictions[0].skip_reason is None
    assert sink.predictions[1].skip_reason == "budget"
    # 0.1 s equals five frames, so about one in five can be explained.
    assert 1 <= summary.explained <= 8
    assert summary.skipped["budget"] == 30 - summary.explained


def test_slow_sink_skips_explanations(model: Model, red_spot: np.ndarray) -> None:
    class Slow(Collector):
        def write(self, prediction: Prediction, progress: RunProgress) -> None:
            super().write(prediction, progress)
            time.sleep(0.05 if prediction.overlay is not None else 0.0)

    sink = Slow(wants_overlay=True)
    summary = run(model, Frames(*[red_spot] * 30), [sink], StreamSettings(min_fps=50))
    assert 1 <= summary.explained <= 15
    assert summary.skipped["budget"] == 30 - summary.explained


def test_unreachable_budget_is_logged_once(
    model: Model, red_spot: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(model, Frames(*[red_spot] * 80), [], StreamSettings(min_fps=1e6))
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "--min-fps 1e+06 cannot be reached even without explanations"
    ]


def test_settings_can_change_per_frame(model: Model, red_spot: np.ndarray) -> None:
    requests = itertools.count()
    sink = Collector()
    live = lambda: LiveSettings(class_index=2 if next(requests) > 10 else None)  # noqa: E731
    run(model, Frames(*[red_spot] * 40), [sink], live_settings=live)
    explained = [prediction.explained for prediction in sink.predictions]
    assert (explained[0], explained[-1]) == ("red", "blue")


def test_settings_change_triggers_explanation(model: Model, red_spot: np.ndarray) -> None:
    requests = itertools.count()
    sink, settings = Collector(), StreamSettings(cadence=ExplainSchedule("on-change"))
    before, after = LiveSettings(), LiveSettings(class_index=2)
    run(model, Frames(*[red_spot] * 40), [sink], settings, lambda: after if next(requests) > 10 else before)
    explained = [prediction.explained for prediction in sink.predictions if prediction.skip_reason is None]
    assert explained == ["red", "blue"]

"""Scores averaged over time, and events with a refractory time."""

from dataclasses import replace

import numpy as np
import pytest
from toy_predictions import in_regions, toy_prediction
from toy_streams import Collector, Frames

from kdedge_runtime.errors import UsageError
from kdedge_runtime.model import Model
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import StreamSettings
from kdedge_runtime.stream.smoothing import EventFilter, ScoreSmoother


def test_mean_covers_the_frames_within_the_time() -> None:
    smoother = ScoreSmoother(1.0)
    scores = [np.array([value, 1 - value], np.float32) for value in (1.0, 0.0, 0.0, 1.0)]
    found = [smoother.smooth(None, 0.5 * number, each)[0] for number, each in enumerate(scores)]
    assert found == pytest.approx([1.0, 0.5, 0.0, 0.5])
    assert smoother.smooth("door", 2.0, scores[0])[0] == 1.0  # regions are independent
    assert smoother.smooth(None, 2.0, np.array([0.2, 0.3, 0.5], np.float32)) == pytest.approx([0.2, 0.3, 0.5])


def test_single_frame_within_the_time_keeps_its_scores() -> None:
    smoother = ScoreSmoother(0.1)
    assert smoother.smooth(None, 0.0, np.ones(2, np.float32))[0] == 1.0
    assert smoother.smooth(None, 5.0, np.zeros(2, np.float32))[0] == 0.0


def test_time_is_the_end_of_a_window_or_the_place_in_a_recording() -> None:
    frame = Frame(30, np.zeros(1), 7.0, "a")
    assert frame.time_s(None) == 7.0
    assert frame.time_s(10.0) == 3.0
    assert Frame(30, np.zeros(1), 7.0, "a", span_s=(1.0, 2.5)).time_s(10.0) == 2.5


def test_label_causes_one_event_within_the_time() -> None:
    events, prediction = EventFilter(1.0), toy_prediction()
    times = (0.0, 0.5, 1.0, 1.9, 2.0)
    assert [events.mark(prediction, at_s).event for at_s in times] == [True, False, True, False, True]
    other = replace(prediction, ranking=(("tree", 0.7), ("sign", 0.1)))
    assert events.mark(other, 2.1).event


def test_unknown_and_improbable_predictions_are_no_events() -> None:
    events, prediction = EventFilter(1.0), toy_prediction()
    assert not events.mark(replace(prediction, unknown=True), 0.0).event
    assert not events.mark(replace(prediction, ranking=(("_silence_", 0.9), ("sign", 0.1))), 0.0).event
    assert not events.mark(replace(prediction, ranking=(("tree", 0.49), ("sign", 0.1))), 0.1).event
    assert events.mark(prediction, 0.2).event


def test_regions_have_their_own_events() -> None:
    events = EventFilter(1.0)
    both = in_regions(toy_prediction(), door="open", window="open")
    assert [each.event for each in events.mark(both, 0.0).by_region] == [True, True]
    assert [each.event for each in events.mark(both, 0.5).by_region] == [False, False]


def test_run_smooths_scores_and_marks_events(model: Model, red_spot: np.ndarray) -> None:
    blue_spot = red_spot[..., ::-1].copy()
    pictures = [red_spot] * 3 + [blue_spot] + [red_spot] * 8
    plain, smooth = Collector(), Collector()
    run(model, Frames(*pictures), [plain])
    settings = StreamSettings(smooth_s=0.1, refractory_s=0.2)  # three and six frames of 30 a second
    run(model, Frames(*pictures), [smooth], settings)
    assert [each.label for each in plain.predictions] == ["red"] * 3 + ["blue"] + ["red"] * 8
    assert {each.label for each in smooth.predictions} == {"red"}
    assert [each.event for each in smooth.predictions] == [True] + [False] * 5 + [True] + [False] * 5
    assert {each.event for each in plain.predictions} == {None}
    assert np.array_equal(smooth.predictions[3].saliency_map, plain.predictions[3].saliency_map)


def test_independent_samples_are_not_smoothed(model: Model, red_spot: np.ndarray) -> None:
    still = Frames(red_spot)
    still.fps = None
    for settings in (StreamSettings(smooth_s=1.0), StreamSettings(refractory_s=1.0)):
        with pytest.raises(UsageError, match="follow one another in time"):
            run(model, still, [Collector()], settings)

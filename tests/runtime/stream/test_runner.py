"""Main loop: predictions for every frame, overlays on request, and failures without data loss."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_predictions import toy_prediction
from toy_streams import Collector, Frames

from kdedge_runtime.errors import KdedgeError, SourceError, UsageError
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.model import Model
from kdedge_runtime.prediction import Prediction, decode_prediction
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.sources.synthetic import SyntheticSource
from kdedge_runtime.sources.tabular.posted_rows import PostedRows
from kdedge_runtime.sources.video_source import VideoSource
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import LiveSettings, StreamSettings
from kdedge_runtime.stream.statistics import STAGES, RunProgress
from kdedge_runtime.util.timing import StageLatency


def test_every_image_gets_a_prediction_and_location(model: Model, photos: Path) -> None:
    sink = Collector()
    with ImageSource(photos) as source:
        summary = run(model, source, [sink])
    assert [prediction.label for prediction in sink.predictions] == ["red", "green", "blue"]
    for prediction in sink.predictions:
        assert prediction.explained == prediction.label
        assert prediction.heat.cx == pytest.approx(44 / 64, abs=0.01)
        assert prediction.heat.cy == pytest.approx(20 / 64, abs=0.01)
        assert sum(p for _, p in prediction.ranking) == pytest.approx(1)
    assert (summary.frames, summary.expected, summary.dropped, summary.unreadable) == (3, 3, 0, 0)
    assert dict(summary.labels) == {"red": 1, "green": 1, "blue": 1}


def test_location_is_in_frame_coordinates_for_crops(model: Model) -> None:
    wide = np.full((64, 192, 3), 90, np.uint8)
    wide[24:40, 88:104] = (255, 0, 0)
    sink = Collector()
    run(model, Frames(wide), [sink])
    assert sink.predictions[0].heat.cx == pytest.approx(0.5, abs=0.01)


def test_overlay_is_drawn_only_on_request(model: Model, red_spot: np.ndarray) -> None:
    blind, seeing = Collector(), Collector(wants_overlay=True)
    assert "overlay" not in run(model, Frames(red_spot), [blind]).stages
    assert blind.predictions[0].overlay is None
    summary = run(model, Frames(red_spot), [Collector(), seeing])
    assert summary.stages["overlay"].count == 1
    assert seeing.predictions[0].overlay.dtype == np.uint8


def test_stages_are_timed_without_warm_up(model: Model, video: Path) -> None:
    with VideoSource(video) as source:
        summary = run(model, source, [Collector(wants_overlay=True)])
    assert {name: stage.count for name, stage in summary.stages.items()} == dict.fromkeys(
        ("wait", "preprocess", "inference", "overlay", "output"), 24
    )
    assert summary.age.count == 24
    assert dict(summary.labels) == {"red": 12, "blue": 12}
    assert summary.fps == pytest.approx(24 / summary.elapsed_s)
    for word in ("24 of 24 frames", "p95", "inference", "frame age", "red × 12"):
        assert word in summary.table()


def test_fixed_class_is_explained_in_every_frame(model: Model, photos: Path) -> None:
    sink = Collector()
    with ImageSource(photos) as source:
        run(model, source, [sink], live_settings=LiveSettings(class_index=2))
    assert [prediction.label for prediction in sink.predictions] == ["red", "green", "blue"]
    assert {prediction.explained for prediction in sink.predictions} == {"blue"}


def test_negative_map_has_no_location(model: Model) -> None:
    sink = Collector()
    run(model, Frames(np.full((64, 64, 3), (255, 0, 0), np.uint8)), [sink], live_settings=LiveSettings(class_index=2))
    assert (sink.predictions[0].heat.cx, sink.predictions[0].heat.area) == (None, 0.0)


def test_max_frames_ends_the_run(model: Model, red_spot: np.ndarray) -> None:
    assert run(model, Frames(*[red_spot] * 5), [], StreamSettings(max_frames=2)).frames == 2


def test_stop_ends_run_after_current_frame(model: Model, red_spot: np.ndarray) -> None:
    stop = threading.Event()
    assert run(model, Frames(*[red_spot] * 5), [Collector(stop=stop)], stop=stop).frames == 1


def test_failed_source_keeps_earlier_results(model: Model, red_spot: np.ndarray) -> None:
    sink = Collector()
    summary = run(model, Frames(red_spot, red_spot, breaks=True), [sink])
    assert summary.frames == len(sink.predictions) == 2
    assert "the cable is out" in str(summary.failure)


def test_source_without_frames_is_an_error(model: Model, photos: Path) -> None:
    with pytest.raises(SourceError, match="the cable is out"):
        run(model, Frames(breaks=True), [])
    for picture in photos.glob("*.png"):
        picture.write_bytes(b"")
    with ImageSource(photos) as source, pytest.raises(SourceError, match="3 unreadable"):
        run(model, source, [])


def test_model_without_map_runs(write_model: Callable[..., Path], red_spot: np.ndarray) -> None:
    sink = Collector(wants_overlay=True)
    run(Model.load(write_model(method="none")), Frames(red_spot), [sink])
    prediction = sink.predictions[0]
    assert (prediction.label, prediction.heat, prediction.saliency_map) == ("red", None, None)
    assert prediction.overlay is not None


def test_caption_mentions_heat_only_with_a_map(
    write_model: Callable[..., Path], red_spot: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        "kdedge_runtime.drawing.overlay.draw_caption", lambda _, caption: written.append(caption.details)
    )
    for model in (write_model("a.onnx"), write_model("b.onnx", method="none")):
        run(
            Model.load(model),
            Frames(red_spot),
            [Collector(wants_overlay=True)],
            live_settings=LiveSettings(class_index=2),
        )
    assert [details[:-1] for details in written] == [("heat: blue",), ()]


def test_non_finite_model_output_is_an_error(write_model: Callable[..., Path], red_spot: np.ndarray) -> None:
    broken = Model.load(write_model(gain=float("nan")))
    with pytest.raises(KdedgeError, match="non-finite"):
        run(broken, Frames(red_spot), [])


def test_weak_evidence_after_strong_is_displayed_weakly(write_model: Callable[..., Path]) -> None:
    spec = ImageInput(64, 64, (0.0,) * 3, (1.0,) * 3)
    model = Model.load(write_model(spec=spec))
    strong, weak = np.full((360, 360, 3), 90, np.uint8), np.full((360, 360, 3), 90, np.uint8)
    strong[90:135, 180:225], weak[90:135, 180:225] = (255, 0, 0), (130, 90, 90)
    moving, still = Collector(wants_overlay=True), Collector(wants_overlay=True)
    run(model, Frames(strong, weak), [moving])
    run(model, Frames(weak), [still])

    def change(prediction: Prediction) -> float:
        here = (slice(100, 125), slice(190, 215))
        return float(np.abs(prediction.overlay[here].astype(int) - prediction.frame.sample[here]).mean())

    assert change(moving.predictions[1]) < 0.5 * change(still.predictions[0])


def test_slow_sink_does_not_age_frames(model: Model) -> None:
    class Slow(Collector):
        def write(self, prediction: Prediction, progress: RunProgress) -> None:
            super().write(prediction, progress)
            time.sleep(0.06)

    sink = Slow()
    with LatestFrames(SyntheticSource(height=64, width=64, frames=90)) as source:
        run(model, source, [sink])
    ages_ms = [prediction.age_ms for prediction in sink.predictions]
    assert source.dropped > 10
    assert np.median(ages_ms[-10:]) < 60, "the latest frame is taken when the sink is ready"


def test_summary_compares_with_reachable_rate(model: Model, red_spot: np.ndarray) -> None:
    summary = run(model, Frames(*[red_spot] * 5), [])
    assert summary.model_fps == pytest.approx(1e3 / summary.stages["inference"].mean_ms)
    assert f"of the {summary.model_fps:.1f} fps of the model alone" in summary.table()
    with LatestFrames(SyntheticSource(height=64, width=64, frames=20)) as source:
        summary = run(model, source, [])
    assert summary.source_fps == 30
    assert "of the 30.0 fps of the source" in summary.table()
    assert summary.age.p50_ms <= summary.age.p95_ms <= summary.age.p99_ms


def test_summary_explains_a_missed_frame_rate(model: Model, red_spot: np.ndarray) -> None:
    reached = run(model, Frames(*[red_spot] * 5), [], StreamSettings(min_fps=0.5))
    missed = run(model, Frames(*[red_spot] * 5), [], StreamSettings(min_fps=1e6))
    assert (reached.misses_minimum, missed.misses_minimum) == (False, True)
    assert "--min-fps" not in reached.table() + run(model, Frames(red_spot), []).table()
    (line,) = [line for line in missed.table().splitlines() if "--min-fps" in line]
    assert f"{missed.fps:.1f} fps measured" in line and "1e+06 expected" in line
    assert missed.as_record()["min_fps"] == 1e6


@pytest.mark.parametrize("slow", STAGES)
def test_remedy_is_that_of_the_slowest_stage(model: Model, red_spot: np.ndarray, slow: str) -> None:
    missed = run(model, Frames(*[red_spot] * 5), [], StreamSettings(min_fps=1e6))
    rare, often = StageLatency(2, 100.0, 100.0, 100.0, 100.0), StageLatency(100, 1.9, 1.9, 1.9, 1.9)
    stages = {name: rare if name == slow else often for name in STAGES}
    table = replace(missed, stages=stages).table()
    assert f"The slowest stage was {slow}." in table


def test_rate_of_posted_samples_is_that_of_their_clients(model: Model) -> None:
    source = PostedRows(TabularInput((TableColumn("age", "numeric", None, (0.0, 1.0), (), (0.5,)),)))
    with pytest.raises(UsageError, match="Remove --min-fps"):
        run(model, source, [], StreamSettings(min_fps=5))
    summaries = []
    for each in (source, Frames()):
        progress = RunProgress(each)
        for stage in ("inference", "inference"):
            with progress.timer.measure(stage):
                pass
        progress.count(toy_prediction())
        summaries.append(progress.summary())
    posted, read = summaries
    assert posted.model_fps is not None and "%" not in posted.table()
    assert "% of the" in replace(read, fps=read.model_fps or 0).table()
    assert "% of the" not in replace(read, fps=(read.model_fps or 0) / 1000).table(), "a figure of 0%"


class Sensed(Frames):
    """Source whose frames were captured before they are read."""

    def __init__(self, *pictures: np.ndarray, ago_s: float) -> None:
        super().__init__(*pictures)
        self._ago_s = ago_s

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            yield replace(frame, captured_at=frame.captured_at - self._ago_s)


def test_age_is_milliseconds_since_capture(model: Model, red_spot: np.ndarray) -> None:
    sink = Collector()
    summary = run(model, Sensed(*[red_spot] * 5, ago_s=3.0), [sink])
    for age_ms in [*(prediction.age_ms for prediction in sink.predictions), summary.age.p50_ms, summary.age.mean_ms]:
        assert 3000 <= age_ms < 3000 + 2000
    assert 3000 <= summary.as_record()["latency_ms"]["age"]["p50"] < 5000


def test_age_uses_the_clock(model: Model, red_spot: np.ndarray) -> None:
    frame = Frame(0, red_spot, 10.0, "test")
    prediction = decode_prediction(model, frame, model.predict(red_spot[None]), clock=lambda: 10.25)
    assert prediction.age_ms == pytest.approx(250.0)


def test_summary_counts_dropped_frames(model: Model, red_spot: np.ndarray) -> None:
    class Dropping(Frames):
        @property
        def dropped(self) -> int:  # type: ignore[override]
            return 7

    summary = run(model, Dropping(red_spot), [])
    assert summary.dropped == summary.as_record()["dropped"] == 7
    assert "7 dropped" in summary.table()

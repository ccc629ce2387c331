"""The loop: every frame answered, the overlay only where it is looked at, failures that lose nothing."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kdedge_runtime.answer import Answer
from kdedge_runtime.errors import KdedgeError, SourceError
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.model import Model
from kdedge_runtime.progress import Progress
from kdedge_runtime.runner import RunSettings, run, stopped_by_signals
from kdedge_runtime.sources.frame import Frame
from kdedge_runtime.sources.picture import PictureSource
from kdedge_runtime.sources.video import VideoSource


class Collector:
    """A sink that keeps everything."""

    def __init__(self, *, wants_overlay: bool = False, stop: threading.Event | None = None) -> None:
        self.wants_overlay = wants_overlay
        self.answers: list[Answer] = []
        self._stop = stop

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, answer: Answer, progress: Progress) -> None:
        assert progress.frames == len(self.answers) + 1
        self.answers.append(answer)
        if self._stop is not None:
            self._stop.set()


class Frames:
    """A source of given pictures that may break after the last."""

    name, live, fps, dropped, unreadable, reconnects = "test", False, 30.0, 0, 0, 0

    def __init__(self, *pictures: np.ndarray, breaks: bool = False) -> None:
        self.expected = len(pictures)
        self._pictures, self._breaks = pictures, breaks

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for index, picture in enumerate(self._pictures):
            yield Frame(index, picture, time.monotonic(), f"test-{index}")
        if self._breaks:
            raise SourceError("the cable is out")


def test_every_picture_is_answered_with_its_place(model: Model, photos: Path) -> None:
    sink = Collector()
    with PictureSource(photos) as source:
        summary = run(model, source, [sink])
    assert [answer.label for answer in sink.answers] == ["red", "green", "blue"]
    for answer in sink.answers:
        assert answer.explained == answer.label
        assert answer.heat.cx == pytest.approx(44 / 64, abs=0.01)
        assert answer.heat.cy == pytest.approx(20 / 64, abs=0.01)
        assert sum(p for _, p in answer.ranking) == pytest.approx(1)
    assert (summary.frames, summary.expected, summary.dropped, summary.unreadable) == (3, 3, 0, 0)
    assert dict(summary.labels) == {"red": 1, "green": 1, "blue": 1}


def test_the_place_is_in_the_frame_also_when_the_model_sees_a_crop(model: Model) -> None:
    wide = np.full((64, 192, 3), 90, np.uint8)
    wide[24:40, 88:104] = (255, 0, 0)
    sink = Collector()
    run(model, Frames(wide), [sink])
    assert sink.answers[0].heat.cx == pytest.approx(0.5, abs=0.01)


def test_the_overlay_is_drawn_only_if_a_sink_wants_it(model: Model, red_spot: np.ndarray) -> None:
    blind, seeing = Collector(), Collector(wants_overlay=True)
    assert "overlay" not in run(model, Frames(red_spot), [blind]).stages
    assert blind.answers[0].overlay is None
    summary = run(model, Frames(red_spot), [Collector(), seeing])
    assert summary.stages["overlay"].count == 1
    assert seeing.answers[0].overlay.dtype == np.uint8


def test_every_stage_of_every_frame_is_timed_and_the_warm_up_is_not(model: Model, video: Path) -> None:
    with VideoSource(video) as source:
        summary = run(model, source, [Collector(wants_overlay=True)])
    assert {name: stage.count for name, stage in summary.stages.items()} == dict.fromkeys(
        ("capture", "preprocess", "inference", "overlay", "output"), 24
    )
    assert summary.age.count == 24
    assert dict(summary.labels) == {"red": 12, "blue": 12}
    assert summary.fps == pytest.approx(24 / summary.elapsed_s)
    for word in ("24 of 24 frames", "p95", "inference", "frame age", "red 12"):
        assert word in summary.table()


def test_a_pinned_class_is_explained_in_every_frame(model: Model, photos: Path) -> None:
    sink = Collector()
    with PictureSource(photos) as source:
        run(model, source, [sink], RunSettings(class_index=2))
    assert [answer.label for answer in sink.answers] == ["red", "green", "blue"]
    assert {answer.explained for answer in sink.answers} == {"blue"}


def test_a_map_that_speaks_against_its_class_has_no_place(model: Model) -> None:
    sink = Collector()
    run(model, Frames(np.full((64, 64, 3), (255, 0, 0), np.uint8)), [sink], RunSettings(class_index=2))
    assert (sink.answers[0].heat.cx, sink.answers[0].heat.area_frac) == (None, 0.0)


def test_max_frames_ends_the_run(model: Model, red_spot: np.ndarray) -> None:
    assert run(model, Frames(*[red_spot] * 5), [], RunSettings(max_frames=2)).frames == 2


def test_a_stop_ends_the_run_after_the_current_frame(model: Model, red_spot: np.ndarray) -> None:
    stop = threading.Event()
    assert run(model, Frames(*[red_spot] * 5), [Collector(stop=stop)], stop=stop).frames == 1


def test_a_source_that_breaks_loses_nothing_that_came_before(model: Model, red_spot: np.ndarray) -> None:
    sink = Collector()
    summary = run(model, Frames(red_spot, red_spot, breaks=True), [sink])
    assert summary.frames == len(sink.answers) == 2
    assert "the cable is out" in str(summary.failure)


def test_a_source_that_gives_nothing_is_an_error(model: Model, photos: Path) -> None:
    with pytest.raises(SourceError, match="the cable is out"):
        run(model, Frames(breaks=True), [])
    for picture in photos.glob("*.png"):
        picture.write_bytes(b"")
    with PictureSource(photos) as source, pytest.raises(SourceError, match="3 unreadable"):
        run(model, source, [])


def test_a_model_without_a_map_runs_and_says_so(write_model: Callable[..., Path], red_spot: np.ndarray) -> None:
    sink = Collector(wants_overlay=True)
    run(Model.load(write_model(method="none")), Frames(red_spot), [sink])
    answer = sink.answers[0]
    assert (answer.label, answer.heat, answer.saliency_map) == ("red", None, None)
    assert answer.overlay is not None


def test_a_model_that_gives_no_numbers_is_an_error(write_model: Callable[..., Path], red_spot: np.ndarray) -> None:
    broken = Model.load(write_model(gain=float("nan")))
    with pytest.raises(KdedgeError, match="not finite"):
        run(broken, Frames(red_spot), [])


def test_weak_evidence_after_strong_stays_dim(write_model: Callable[..., Path]) -> None:
    spec = ImageInput(64, 64, (0.0,) * 3, (1.0,) * 3)
    model = Model.load(write_model(spec=spec))
    strong, weak = np.full((360, 360, 3), 90, np.uint8), np.full((360, 360, 3), 90, np.uint8)
    strong[90:135, 180:225], weak[90:135, 180:225] = (255, 0, 0), (130, 90, 90)
    moving, still = Collector(wants_overlay=True), Collector(wants_overlay=True)
    run(model, Frames(strong, weak), [moving])
    run(model, Frames(weak), [still])

    def change(answer: Answer) -> float:
        here = (slice(100, 125), slice(190, 215))
        return float(np.abs(answer.overlay[here].astype(int) - answer.frame.rgb[here]).mean())

    assert change(moving.answers[1]) < 0.5 * change(still.answers[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_ask_to_stop_and_are_given_back(number: int) -> None:
    before, stop = signal.getsignal(number), threading.Event()
    with stopped_by_signals(stop):
        os.kill(os.getpid(), number)
        assert stop.wait(1)
        assert signal.getsignal(number) == before, "a second signal acts as it would without us"
    assert signal.getsignal(number) == before

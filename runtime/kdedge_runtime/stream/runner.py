"""Main loop: read frames from a source, run the model, write to sinks."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np

from kdedge_runtime.drawing.heatmap import UNMEASURED
from kdedge_runtime.errors import SourceError, UsageError
from kdedge_runtime.familiarity import UNKNOWN
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.modalities import Region, Sample
from kdedge_runtime.model import Explanation, Model
from kdedge_runtime.prediction import Prediction, decode_prediction
from kdedge_runtime.sinks.sink import Sink
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.source import Frame, PostedSource, Source, is_still_source
from kdedge_runtime.stream.prefetch import Prefetcher
from kdedge_runtime.stream.schedule import ExplainScheduler, FpsBudget, Reason
from kdedge_runtime.stream.settings import LiveSettings, StreamSettings
from kdedge_runtime.stream.smoothing import EventFilter, ScoreSmoother
from kdedge_runtime.stream.statistics import RunProgress, RunSummary
from kdedge_runtime.tasks import TASKS

__all__ = ["run", "stopped_by_signals", "warm_up"]

if TYPE_CHECKING:
    from kdedge_runtime.explainers import Explainer

_log = logging.getLogger(__name__)

_WARM_UPS = 2
_FRAMES_OVER_BUDGET = 30
_UNWATCHED_S = 1.0
"""Seconds without an overlay request after which the next request counts as a new viewer. A view requests fewer images
than there are frames.
"""


def run(
    model: Model,
    source: Source,
    sinks: Sequence[Sink],
    settings: StreamSettings | None = None,
    live_settings: LiveSettings | Callable[[], LiveSettings] | None = None,
    stop: threading.Event | None = None,
) -> RunSummary:
    """Run the model on every frame of a source and pass the predictions to the sinks.

    Reading, inference and sinks run concurrently, each at most one frame ahead of the next. Warm-up passes come first,
    so that measurements exclude them. Overlays are drawn only for explained frames, and only if a sink requests them.

    Args:
        model: the model to run.
        source: an entered source.
        sinks: entered sinks, written to from this thread.
        settings: fixed settings; None for the defaults.
        live_settings: settings of all frames, or a function that is called before every frame; None for the defaults.
        stop: event that ends the run after the current frame. It may be set from any thread or signal handler.

    Returns:
        The summary. If the source fails after its first frame, the error is in `failure`, so that the sinks can be
        closed.

    Raises:
        SourceError: the source returned no frame.
        UsageError: a region exceeds a frame, frames without an order in time are to be smoothed, or posted samples have
        a minimum frame rate.
        KdedgeError: an output of the model is not finite, or a sink cannot write.
    """
    settings, given = settings or StreamSettings(), live_settings or LiveSettings()
    current = given if callable(given) else lambda: given
    stop = stop or threading.Event()
    _require_time(settings, source)
    events = None if settings.refractory_s is None else EventFilter(settings.refractory_s)
    progress = RunProgress(source, min_fps=settings.min_fps)
    budget = None if settings.min_fps is None else FpsBudget(settings.min_fps, live=source.live)
    scheduler = ExplainScheduler(settings.cadence, budget)
    outputs = _InferenceStage(model, source, settings, current, progress, scheduler, stop)
    recorded_fps = None if source.live else source.fps
    watched_at = time.monotonic() if any(sink.wants_overlay for sink in sinks) else -math.inf
    renderer = model.metadata.input.renderer(moving=not is_still_source(source), fps=recorded_fps)
    try:
        with outputs.ahead() as ready:
            for result in ready:
                prediction = result.prediction()
                if events is not None:
                    prediction = events.mark(prediction, prediction.frame.time_s(recorded_fps))
                renderer.update_scale(prediction)
                watched = any(sink.wants_overlay for sink in sinks)
                if watched:
                    if time.monotonic() - watched_at > _UNWATCHED_S:
                        scheduler.forget()
                    watched_at = time.monotonic()
                if prediction.frame_skip_reason is None and watched:
                    with progress.timer.measure("overlay"):
                        prediction = replace(prediction, overlay=renderer.render(prediction, current().opacity))
                progress.count(prediction)
                with progress.timer.measure("output"):
                    for sink in sinks:
                        sink.write(prediction, progress)
                if stop.is_set() or progress.frames == settings.max_frames:
                    break
    except SourceError as error:
        if not progress.frames:
            raise
        progress.failure = error
    if not progress.frames and not stop.is_set():
        raise SourceError(
            f"{source.name} returned no readable frame ({progress.unreadable:,} unreadable). Check the files or "
            "the sensor."
        )
    return progress.summary()


def _require_time(settings: StreamSettings, source: Source) -> None:
    if settings.min_fps is not None and isinstance(source, PostedSource):
        raise UsageError(
            f"--min-fps sets the frame rate of a source, but clients decide when they post to {source.name}. Remove "
            "--min-fps; --budget-ms limits the time of a --method."
        )
    for option, seconds in (("--smooth", settings.smooth_s), ("--refractory", settings.refractory_s)):
        if seconds is not None and is_still_source(source):
            raise UsageError(
                f"{option} needs frames that follow one another in time, but {source.name} has independent samples. "
                f"Remove {option}, or name a single recording or a live source."
            )


def warm_up(model: Model, class_index: int | None = None, batch: int = 1) -> None:
    """Run the model twice on blank samples, because the first passes allocate memory and are slower."""
    spec = model.metadata.input
    for _ in range(_WARM_UPS):
        model.predict(np.zeros((batch, *spec.shape), spec.dtype), class_index)


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on SIGINT, SIGTERM and SIGHUP within the block. A second signal has its original effect.

    Ignored signals stay ignored, so that `nohup` keeps a run alive when its terminal closes.
    """

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    # SIGHUP: the terminal or SSH session was closed. Not available on every system.
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {int(number): signal.getsignal(number) for number in numbers}
    for number in [number for number, handler in before.items() if handler != signal.SIG_IGN]:
        signal.signal(number, request_stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class _FrameOutput:
    """Model outputs for one frame or its regions, with their time."""

    model: Model
    """Model with the classes that the outputs refer to."""
    frame: Frame
    outputs: list[tuple[Region | None, Explanation, Reason | None]]
    """Region, output and reason why it was not explained, in the order of the regions."""
    predicted_at: float

    def prediction(self) -> Prediction:
        first, *further = (
            replace(
                decode_prediction(self.model, self.frame, explanation, lambda: self.predicted_at, region),
                skip_reason=skip_reason,
            )
            for region, explanation, skip_reason in self.outputs
        )
        return replace(first, further=tuple(further))


class _InferenceStage:
    """Inference stage of a run: frames in, model outputs out."""

    def __init__(
        self,
        model: Model,
        source: Source,
        settings: StreamSettings,
        current: Callable[[], LiveSettings],
        progress: RunProgress,
        scheduler: ExplainScheduler,
        stop: threading.Event,
    ) -> None:
        self._model = model
        self._source = source
        self._current = current
        self._live_settings = current()
        self._marks_unknown = settings.unknown
        self._min_fps = settings.min_fps
        self._regions = settings.regions
        self._progress = progress
        self._timer = progress.timer
        self._scheduler = scheduler
        self._stop = stop
        self._over_budget = 0
        self._smoother = None if settings.smooth_s is None else ScoreSmoother(settings.smooth_s)

    @contextmanager
    def ahead(self) -> Iterator[Iterable[_FrameOutput]]:
        """Yield the model outputs, computed in background threads."""
        prepared = self._prepared()
        if isinstance(self._source, LatestFrames):
            # This source reads ahead by itself. The newest frame is requested as late as possible to keep it fresh.
            with Prefetcher(self._outputs(prepared), "kdedge-model", self._stop) as outputs:
                yield outputs
        else:
            with (
                Prefetcher(prepared, "kdedge-source", self._stop) as frames,
                Prefetcher(self._outputs(frames), "kdedge-model", self._stop) as outputs,
            ):
                yield outputs

    def _outputs(self, prepared: Iterable[tuple[Frame, Sample]]) -> Iterator[_FrameOutput]:
        # Warm up here, while the first frame is read.
        current = self._current()
        warm_up(current.model or self._model, current.class_index, max(1, len(self._regions)))
        self._progress.start()
        yield from map(self._infer, prepared)

    def _prepared(self) -> Iterator[tuple[Frame, Sample]]:
        frames = iter(self._source)
        is_checked = not self._regions
        while True:
            try:
                with self._timer.measure("wait"):
                    frame = next(frames)
            except StopIteration:
                return
            if not is_checked:
                for warning in self._model.metadata.input.region_warnings(self._regions, frame.sample):
                    _log.warning("%s", warning)
                is_checked = True
            with self._timer.measure("preprocess"):
                samples = self._preprocess(frame.sample)
            prepared = [(frame, samples)]
            del frame  # frees a large frame before the next one is read
            yield prepared.pop()

    def _preprocess(self, sample: Sample) -> Sample:
        """Return the model input: a batch of the regions, or of the whole sample."""
        spec = self._model.metadata.input
        if not self._regions:
            return spec.preprocess(sample)[None]
        return np.stack([spec.preprocess(region.cut(sample)) for region in self._regions])

    def _infer(self, prepared: tuple[Frame, Sample]) -> _FrameOutput:
        frame, samples = prepared
        started = time.perf_counter()
        current, before = self._current(), self._live_settings
        if current != before:
            self._scheduler.forget()
        self._live_settings = current
        model, explainer = current.model or self._model, current.explainer
        explains = explainer is not None or self._model.has_map
        skip_reason = self._scheduler.before(frame.index) if explains else None
        with self._timer.measure("inference"):
            uses_own_map = explains and skip_reason is None and explainer is None
            explanation = model.predict(samples, current.class_index, explained=uses_own_map)
        if not self._marks_unknown:
            explanation = replace(explanation, unknown=None)
        rows = [explanation] if len(samples) == 1 else [explanation.of_sample(index) for index in range(len(samples))]
        if self._smoother is not None:
            rows = [
                self._smoothed(region, row, frame) for region, row in zip(self._regions or (None,), rows, strict=True)
            ]
        outputs: list[tuple[Region | None, Explanation, Reason | None]] = []
        for region, row, sample in zip(self._regions or (None,), rows, samples, strict=True):
            explained, reason = row, skip_reason
            if explains and skip_reason is None:
                explained, reason = self._explain(model.metadata, row, sample, region, explainer)
            outputs.append((region, explained, reason))
        predicted_at = time.monotonic()
        is_explained = any(reason is None for _, _, reason in outputs)
        self._warn(is_explained, time.perf_counter() - started)
        return _FrameOutput(model, frame, outputs, predicted_at)

    def _smoothed(self, region: Region | None, row: Explanation, frame: Frame) -> Explanation:
        """Replace the scores of a row by their mean over recent frames; logits and map stay those of the frame."""
        assert self._smoother is not None
        at_s = frame.time_s(None if self._source.live else self._source.fps)
        name = None if region is None else region.name
        return replace(row, scores=self._smoother.smooth(name, at_s, row.scores[0])[None])

    def _explain(
        self,
        metadata: Metadata,
        explanation: Explanation,
        sample: Sample,
        region: Region | None,
        explainer: "Explainer | None",
    ) -> tuple[Explanation, Reason | None]:
        """Add the map of a black-box explainer, or remove the map that the schedule leaves out."""
        task = TASKS[metadata.task]
        label, score = task.ranking(explanation.scores[0], metadata.labels)[0]
        share = task.share(score)
        if explanation.unknown is not None and explanation.unknown[0]:
            label, share = UNKNOWN, 0.0
        name = None if region is None else region.name
        skip_reason = self._scheduler.after(label, 1.0 if share is None else share, name)
        if skip_reason is not None:
            explanation = replace(explanation, saliency_map=None)
        elif explainer is not None:
            with self._timer.measure("explanation"):
                estimate = explainer(sample, int(explanation.explained_class[0]))
            explanation = replace(explanation, saliency_map=estimate.map[None], display=UNMEASURED)
        return explanation, skip_reason

    def _warn(self, is_explained: bool, busy_s: float) -> None:
        """Log a warning once if the minimum frame rate is missed even without explanations."""
        if self._min_fps is None or is_explained:
            return
        self._over_budget = self._over_budget + 1 if busy_s * self._min_fps > 1 else 0
        if self._over_budget == _FRAMES_OVER_BUDGET:
            _log.warning(
                "--min-fps %g cannot be reached even without explanations: one pass of the model takes %.0f ms",
                self._min_fps,
                busy_s * 1e3,
            )

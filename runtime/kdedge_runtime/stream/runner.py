"""The loop: a source, a model, sinks."""

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

from kdedge_runtime.drawing.heatmap import OPACITY, UNMEASURED
from kdedge_runtime.errors import SourceError
from kdedge_runtime.model import Explanation, Model
from kdedge_runtime.prediction import Answer, read_answer
from kdedge_runtime.preprocess import fit
from kdedge_runtime.sinks.sink import Sink
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.source import Frame, Source, stands_still
from kdedge_runtime.stream.prefetch import Ahead
from kdedge_runtime.stream.renderer import Painter
from kdedge_runtime.stream.schedule import ALWAYS, Cadence, FrameBudget, Reason, Thinning
from kdedge_runtime.stream.statistics import Progress, RunSummary
from kdedge_runtime.util.arrays import Pixels

__all__ = ["RunSettings", "run", "stopped_by_signals", "warm_up"]

if TYPE_CHECKING:
    from kdedge_runtime.explainers import Explainer

_log = logging.getLogger(__name__)

_WARM_UPS = 2
_FRAMES_OVER_BUDGET = 30
_UNWATCHED_S = 1.0
"""A view wants fewer pictures than there are frames; after this time without one, somebody has begun to watch."""


@dataclass(frozen=True)
class RunSettings:
    """What a user may choose about a run."""

    class_index: int | None = None
    """The class to explain in every frame; None explains the best one of each."""
    opacity: float = OPACITY
    """Cover of full heat on the overlay, in [0, 1]."""
    max_frames: int | None = None
    """Stop after this many answers; None runs until the source ends."""
    cadence: Cadence = ALWAYS
    """Which frames are explained and drawn."""
    budget_fps: float | None = None
    """Frames per second to keep up with: explanations thin before frames are dropped. None explains regardless."""
    explainer: "Explainer | None" = None
    """Explains in the place of the graph (see `kdedge_runtime.explainers`); None takes the graph's map."""


def run(
    model: Model,
    source: Source,
    sinks: Sequence[Sink],
    settings: RunSettings | Callable[[], RunSettings] | None = None,
    stop: threading.Event | None = None,
) -> RunSummary:
    """Answer every frame of a source and hand the answers to the sinks.

    Reading, the model and the sinks work side by side, each at most a frame ahead of the next. The model is
    warmed up first, so that no figure holds its first, slower passes. The overlay is drawn only for explained frames
    that some sink wants to see.

    Args:
        model: the model to run.
        source: already entered.
        sinks: already entered; written to from this thread.
        settings: None for the defaults; a function is asked before every frame for the class, the opacity and the
            explainer.
        stop: ends the run after the current frame when set, from any thread or signal.

    Returns:
        The figures. A source that gives out after its first frame is reported in `failure`, so that the sinks can
        be closed in peace.

    Raises:
        SourceError: the source gave no frame at all.
        KdedgeError: the model's outputs are not finite, or a sink cannot write.
    """
    given = settings or RunSettings()
    current = given if callable(given) else lambda: given
    first = current()
    stop = stop or threading.Event()
    progress = Progress(source)
    budget = None if first.budget_fps is None else FrameBudget(first.budget_fps, live=source.live)
    thinning = Thinning(first.cadence, budget)
    looks = _Looks(model, source, current, progress, thinning, stop)
    recorded_fps = None if source.live else source.fps
    watched_at = time.monotonic() if any(sink.wants_overlay for sink in sinks) else -math.inf
    painter = Painter(model.metadata.input, moving=not stands_still(source), fps=recorded_fps)
    try:
        with looks.ahead() as ready:
            for look in ready:
                answer = look.answer(model)
                painter.look(answer)
                watched = any(sink.wants_overlay for sink in sinks)
                if watched:
                    if time.monotonic() - watched_at > _UNWATCHED_S:
                        thinning.forget()
                    watched_at = time.monotonic()
                if answer.left_out is None and watched:
                    with progress.timer.measure("overlay"):
                        answer = replace(answer, overlay=painter.paint(answer, current().opacity))
                progress.count(answer)
                with progress.timer.measure("output"):
                    for sink in sinks:
                        sink.write(answer, progress)
                if stop.is_set() or progress.frames == first.max_frames:
                    break
    except SourceError as error:
        if not progress.frames:
            raise
        progress.failure = error
    if not progress.frames and not stop.is_set():
        raise SourceError(
            f"{source.name} gave no frame that can be read ({progress.unreadable:,} unreadable). "
            "Check the files, or see that all else works with `--source synthetic:`."
        )
    return progress.summary()


def warm_up(model: Model, class_index: int | None = None) -> None:
    """Run the model on an empty picture twice: the first passes allocate and are slower, and loading made one."""
    spec = model.metadata.input
    for _ in range(_WARM_UPS):
        model.predict(np.zeros((1, spec.height, spec.width, 3), dtype=np.uint8), class_index)


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP set `stop`; a second one acts as it would without us.

    One that is ignored stays so: `nohup` has a run go on when its terminal is closed.
    """

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    # SIGHUP: the terminal or ssh session of a recording was closed. Not every system has it.
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {int(number): signal.getsignal(number) for number in numbers}
    for number in [number for number, handler in before.items() if handler != signal.SIG_IGN]:
        signal.signal(number, ask_to_stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class _Look:
    """What the model said of a frame, and when."""

    frame: Frame
    explanation: Explanation
    left_out: Reason | None
    answered_at: float

    def answer(self, model: Model) -> Answer:
        answer = read_answer(model, self.frame, self.explanation, clock=lambda: self.answered_at)
        return replace(answer, left_out=self.left_out)


class _Looks:
    """The model's side of a run: frames in, looks out."""

    def __init__(
        self,
        model: Model,
        source: Source,
        current: Callable[[], RunSettings],
        progress: Progress,
        thinning: Thinning,
        stop: threading.Event,
    ) -> None:
        self._model = model
        self._source = source
        self._current = current
        self._settings = current()
        self._budget_fps = self._settings.budget_fps
        self._progress = progress
        self._timer = progress.timer
        self._thinning = thinning
        self._stop = stop
        self._over_budget = 0

    @contextmanager
    def ahead(self) -> Iterator[Iterable[_Look]]:
        """The looks, worked out in other threads."""
        prepared = self._prepared()
        if isinstance(self._source, LatestFrames):
            # It reads ahead by itself. What is newest is asked for as late as can be: prepared ahead it would age.
            with Ahead(self._looks(prepared), "kdedge-model", self._stop) as looks:
                yield looks
        else:
            with (
                Ahead(prepared, "kdedge-source", self._stop) as frames,
                Ahead(self._looks(frames), "kdedge-model", self._stop) as looks,
            ):
                yield looks

    def _looks(self, prepared: Iterable[tuple[Frame, Pixels]]) -> Iterator[_Look]:
        # Here, so that the first frame is read meanwhile.
        warm_up(self._model, self._current().class_index)
        self._progress.start()
        yield from map(self._look, prepared)

    def _prepared(self) -> Iterator[tuple[Frame, Pixels]]:
        frames = iter(self._source)
        while True:
            try:
                with self._timer.measure("capture"):
                    frame = next(frames)
            except StopIteration:
                return
            with self._timer.measure("preprocess"):
                image = fit(frame.rgb, self._model.metadata.input)[None]
            prepared = [(frame, image)]
            del frame  # which may have many megabytes, and is not kept while the next one is read
            yield prepared.pop()

    def _look(self, prepared: tuple[Frame, Pixels]) -> _Look:
        frame, image = prepared
        started = time.perf_counter()
        settings, before = self._current(), self._settings
        if settings != before:
            self._thinning.forget()
        self._settings = settings
        explainer = settings.explainer
        explains = explainer is not None or self._model.has_map
        left_out = self._thinning.before(frame.index) if explains else None
        with self._timer.measure("inference"):
            asks = explains and left_out is None and explainer is None
            explanation = self._model.predict(image, settings.class_index, explained=asks)
        if explains and left_out is None:
            probabilities = explanation.probabilities[0]
            best = int(probabilities.argmax())
            left_out = self._thinning.after(self._model.metadata.labels[best], float(probabilities[best]))
            if left_out is not None:
                explanation = replace(explanation, saliency_map=None)
            elif explainer is not None:
                with self._timer.measure("explanation"):
                    estimate = explainer(image[0], int(explanation.explained_class[0]))
                explanation = replace(explanation, saliency_map=estimate.map[None], display=UNMEASURED)
        answered_at = time.monotonic()
        self._warn(left_out, time.perf_counter() - started)
        return _Look(frame, explanation, left_out, answered_at)

    def _warn(self, left_out: Reason | None, busy_s: float) -> None:
        """Say once that leaving explanations out is not enough."""
        if self._budget_fps is None or left_out is None:
            return
        self._over_budget = self._over_budget + 1 if busy_s * self._budget_fps > 1 else 0
        if self._over_budget == _FRAMES_OVER_BUDGET:
            _log.warning(
                "--fps %g is out of reach even without explanations: one pass of the model takes %.0f ms",
                self._budget_fps,
                busy_s * 1e3,
            )

"""The loop: a source, a model, sinks."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import numpy as np

from kdedge_runtime.answer import Answer, read_answer
from kdedge_runtime.arrays import Pixels
from kdedge_runtime.caption import Caption
from kdedge_runtime.errors import SourceError
from kdedge_runtime.heat import SteadyScale, peak, rectified
from kdedge_runtime.model import Model
from kdedge_runtime.overlay import OPACITY, draw_overlay
from kdedge_runtime.preprocess import fit, visible_box
from kdedge_runtime.progress import Progress, RunSummary
from kdedge_runtime.sinks.sink import Sink
from kdedge_runtime.sources.frame import Source
from kdedge_runtime.sources.picture import PictureSource

__all__ = ["RunSettings", "run", "stopped_by_signals", "warm_up"]

_WARM_UPS = 3


@dataclass(frozen=True)
class RunSettings:
    """What a user may choose about a run."""

    class_index: int | None = None
    """The class to explain in every frame; None explains the best one of each."""
    opacity: float = OPACITY
    """Cover of full heat on the overlay, in [0, 1]."""
    max_frames: int | None = None
    """Stop after this many answers; None runs until the source ends."""


def run(
    model: Model,
    source: Source,
    sinks: Sequence[Sink],
    settings: RunSettings | Callable[[], RunSettings] | None = None,
    stop: threading.Event | None = None,
) -> RunSummary:
    """Answer every frame of a source and hand the answers to the sinks.

    The model is warmed up first, so that no figure holds its first, slower passes. The overlay is drawn only for
    frames that some sink wants to see.

    Args:
        model: the model to run.
        source: already entered.
        sinks: already entered.
        settings: None for the defaults; a function is asked before every frame.
        stop: ends the run after the current frame when set, from any thread or signal.

    Returns:
        The figures. A source that gives out after its first frame is reported in `failure`, so that the sinks can
        be closed in peace.

    Raises:
        SourceError: the source gave no frame at all.
        KdedgeError: the model's outputs are not finite, or a sink cannot write.
    """
    fixed = settings or RunSettings()
    current = fixed if callable(fixed) else lambda: fixed
    stop = stop or threading.Event()
    warm_up(model, current().class_index)
    progress = Progress(source)
    failure = None
    try:
        for answer in _answers(model, source, sinks, current, progress):
            progress.count(answer)
            with progress.timer.measure("output"):
                for sink in sinks:
                    sink.write(answer, progress)
            if stop.is_set() or progress.frames == current().max_frames:
                break
    except SourceError as error:
        if not progress.frames:
            raise
        failure = error
    if not progress.frames and not stop.is_set():
        raise SourceError(
            f"{source.name} gave no frame that can be read ({progress.unreadable:,} unreadable). "
            "Check the files, or see that all else works with `--source synthetic:`."
        )
    return progress.summary(failure)


def warm_up(model: Model, class_index: int | None = None) -> None:
    """Run the model on an empty picture a few times: the first passes allocate and are slower."""
    spec = model.metadata.input
    for _ in range(_WARM_UPS):
        model.predict(np.zeros((1, spec.height, spec.width, 3), dtype=np.uint8), class_index)


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP set `stop`; a second one acts as it would without us."""

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[number])

    # SIGHUP: the terminal or ssh session of a recording was closed. Not every system has it.
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {int(number): signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, ask_to_stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answers(
    model: Model, source: Source, sinks: Sequence[Sink], current: Callable[[], RunSettings], progress: Progress
) -> Iterator[Answer]:
    painter = _Painter(model, moving=not isinstance(source, PictureSource))
    timer = progress.timer
    frames = iter(source)
    while True:
        try:
            with timer.measure("capture"):
                frame = next(frames)
        except StopIteration:
            return
        settings = current()
        with timer.measure("preprocess"):
            image = fit(frame.rgb, model.metadata.input)[None]
        with timer.measure("inference"):
            explanation = model.predict(image, settings.class_index)
        answer = read_answer(model, frame, explanation)
        painter.look(answer)
        if any(sink.wants_overlay for sink in sinks):
            with timer.measure("overlay"):
                answer = replace(answer, overlay=painter.paint(answer, settings.opacity))
        yield answer


class _Painter:
    """Draws answers; of a moving picture it remembers how bright the heat was."""

    def __init__(self, model: Model, *, moving: bool) -> None:
        self._spec = model.metadata.input
        self._moving = moving
        self._steady = SteadyScale()
        self._scale = 0.0

    def look(self, answer: Answer) -> None:
        """Take in the strength of the evidence, also of frames that are not drawn."""
        if answer.saliency_map is not None:
            strength = peak(answer.saliency_map)
            self._scale = self._steady.update(strength) if self._moving else strength

    def paint(self, answer: Answer, opacity: float) -> Pixels:
        rgb = answer.frame.rgb
        heat = None if answer.saliency_map is None else rectified(answer.saliency_map, self._scale)
        details = [] if answer.explained == answer.label else [f"heat: {answer.explained}"]
        if self._moving:
            details.append(f"{answer.age_ms:.0f} ms old")
        caption = Caption(answer.label, answer.probability, tuple(details))
        height, width = rgb.shape[:2]
        box = visible_box(height, width, self._spec)
        return draw_overlay(rgb, heat, box, caption, opacity=opacity)

"""False alarms per hour on recordings that contain no class, with an exact interval."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from kdedge_export.metrics.confidence import Interval
from kdedge_runtime import Model
from kdedge_runtime.errors import SourceError
from kdedge_runtime.prediction import decode_prediction
from kdedge_runtime.sources.source import Frame, Source
from kdedge_runtime.stream.smoothing import EventFilter
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["REFRACTORY_S", "FalseAlarms", "count_false_alarms", "poisson_interval"]

REFRACTORY_S = 1.0
"""Time after an alarm in which its label causes no further one, in seconds."""
_BATCH = 32
_OUTSIDE = 0.025
"""Probability outside each end of the interval."""


@dataclass(frozen=True)
class FalseAlarms:
    """False alarms of one model file."""

    model: str
    """Name of the file's candidate."""
    alarms: int
    hours: float
    """Length of the recordings in hours."""
    per_hour: float
    interval: Interval
    """Exact interval of the alarms per hour, for a Poisson process (Garwood 1936)."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Number of alarms by label."""


def count_false_alarms(
    role: str, model: Model, open_source: Callable[[], Source], progress: ProgressCallback = no_progress
) -> FalseAlarms:
    """Run a file on background recordings, and count its events; see `EventFilter`.

    Time in no window, such as that of zeros, does not count.

    Args:
        role: name of the file's candidate.
        model: the file.
        open_source: creates the source of the recordings, whose frames are windows in time.
        progress: called after every batch with the number of windows.

    Raises:
        SourceError: no recording is readable.
    """
    labels: Counter[str] = Counter()
    seconds, done, name = 0.0, 0, ""
    with open_source() as source:
        name = source.name
        for recording in _recordings(source):
            events, end_s = EventFilter(REFRACTORY_S), 0.0
            for batch in _batches(recording):
                samples = np.stack([model.metadata.input.preprocess(frame.sample) for frame in batch])
                found = model.predict(samples, explained=False)
                for number, frame in enumerate(batch):
                    assert frame.span_s is not None
                    prediction = decode_prediction(model, frame, found.of_sample(number))
                    seconds += frame.span_s[1] - max(frame.span_s[0], end_s)
                    end_s = frame.span_s[1]
                    if events.mark(prediction, frame.span_s[1]).event:
                        labels[prediction.label] += 1
                done += len(batch)
                progress(f"background, {role}", done, done)
    if not seconds:
        raise SourceError(
            f"None of the background recordings in {name} can be read, so that there is no time in which to count "
            "false alarms. Expected sounds that are not silent."
        )
    alarms, hours = labels.total(), seconds / 3600
    low, high = poisson_interval(alarms)
    return FalseAlarms(role, alarms, hours, alarms / hours, Interval(low / hours, high / hours), dict(labels))


def poisson_interval(count: int) -> tuple[float, float]:
    """Return the exact interval of the mean of a Poisson variable that was observed once, with 95% coverage."""

    def below(most: int, mean: float) -> float:
        """Return the probability of at most `most` events."""
        if mean == 0:
            return 1.0
        return math.fsum(
            math.exp(number * math.log(mean) - mean - math.lgamma(number + 1)) for number in range(most + 1)
        )

    low = 0.0 if count == 0 else _root(lambda mean: 1 - below(count - 1, mean) - _OUTSIDE, count)
    return low, _root(lambda mean: _OUTSIDE - below(count, mean), count)


def _root(rising: Callable[[float], float], count: int) -> float:
    """Return the root of a rising function by bisection."""
    low, high = 0.0, count + 10 * math.sqrt(count + 1) + 10
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _recordings(source: Source) -> Iterator[Iterator[Frame]]:
    """Group the windows of a source by recording, which is the part of their names before `#`."""
    frames = iter(source)
    following = next(frames, None)

    def windows() -> Iterator[Frame]:
        nonlocal following
        while following is not None:
            name = _recording_name(following)
            yield following
            following = next(frames, None)
            if following is None or _recording_name(following) != name:
                return

    while following is not None:
        yield windows()


def _recording_name(frame: Frame) -> str:
    return frame.name.rpartition("#")[0]


def _batches(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch

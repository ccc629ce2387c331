"""JSON Lines output: one line of about 200 bytes per frame, and a summary as the last line."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.prediction import Prediction, sum_of_others
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.output_stream import OutputStream
from kdedge_runtime.util.printable import printable_json

__all__ = ["JsonLinesFile", "record"]


def record(prediction: Prediction, age_now_s: float, now: datetime) -> dict[str, Any]:
    """Convert a prediction to a JSON-compatible record.

    Args:
        prediction: the prediction.
        age_now_s: seconds since the frame was captured.
        now: current time in UTC.
    """
    span = prediction.frame.span_s
    line: dict[str, Any] = {
        "frame": prediction.frame.index,
        "name": prediction.frame.name,
        **({} if prediction.region is None else {"region": prediction.region.name}),
        **({} if span is None else {"start": round(span[0], 3), "end": round(span[1], 3)}),
        "time": (now - timedelta(seconds=age_now_s)).isoformat(timespec="milliseconds"),
        "age_ms": round(prediction.age_ms, 2),
        "label": prediction.label,
        prediction.score_key: round(prediction.score, 5),
        "familiarity": None if prediction.familiarity is None else round(prediction.familiarity, 5),
        "unknown": prediction.unknown,
        **({} if prediction.event is None else {"event": prediction.event}),
        "explained": None if prediction.saliency_map is None else prediction.explained,
        "skip_reason": prediction.skip_reason,
        "heat": _heat(prediction),
    }
    if prediction.saliency_map is not None and (reasons := prediction.reasons()):
        output = {} if prediction.output is None else {"output": round(prediction.output, 5)}
        line |= {"reasons": reasons, "other": sum_of_others(prediction.saliency_map, reasons), **output}
    if unseen := prediction.unseen:
        line["unseen"] = unseen
    if (truth := prediction.frame.truth) is not None:
        box = {} if truth.box is None else {"box": _fractions(truth.box, prediction.frame)}
        line["truth"] = {"label": truth.label, **box}
    return line


class JsonLinesFile:
    """Writes records to a file, or to standard output for `-`. Each line is flushed.

    There is one line per frame, or one per region of it with the name of the `region`.

    A window of a recording has `start` and `end` in seconds from the start of the source. With a refractory time,
    `event` is true for the first line of a detection.

    `time` is the capture time and `age_ms` the frame's age at prediction. `familiarity` is larger for frames that are
    more similar to the training samples. It is null if the model does not have it. If it lies below the model's
    threshold, `unknown` is true, and `label` and `p` belong to the nearest class. An embedding model has the cosine
    `similarity` of the class, in [-1, 1], instead of the probability `p`. `explained` is the class that the map
    explains. If the frame was not explained it is null, and `skip_reason` gives the reason: `cadence` or `budget`.
    `heat` contains `cx` and `cy` (center of mass as fractions of the frame or region, from its upper left corner),
    `area` (share of the map above half of its maximum) and `entropy` (0 for one position, 1 for uniform). It is null
    without a map; its values are null if no evidence is positive. Synthetic frames have `truth`: `label`, and for
    images `box` (left, top, right, bottom as fractions of the frame).

    Rows of a table have `reasons`: the columns with the largest contributions to the explained output, with their value
    and unit. `other` is the sum of the remaining contributions, and `output` the explained output: the logit of the
    class, or the value of a regression. With a complete method, such as DeepLIFT, all contributions and the output for
    the average row add up to `output`; with a black-box explainer they need not. `unseen` has the categories that the
    model does not have, by column. They count as missing. The field is absent if there are none.

    The last line contains only `summary`, the summary of the run. On standard output with an encoding that lacks
    characters, such as ASCII, texts have JSON escapes.
    """

    wants_overlay = False

    def __init__(self, target: str, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a sink. `target` is opened on entering.

        Args:
            target: path of a file, which is replaced, or `-`.
            stop: event to set when the reader of standard output has exited (`… | head`).
            clock: clock of `Frame.captured_at`.
        """
        self._target = target
        self._clock = clock
        self._stop = stop
        self._output: OutputStream | None = None
        self._file: TextIO | None = None
        self._progress: RunProgress | None = None
        self._whole_bytes = 0

    def __enter__(self) -> Self:
        if self._target == "-":
            self._output = OutputStream(self._stop)
        else:
            path = Path(self._target)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("w", encoding="utf-8", newline="\n")
                self._output = OutputStream(self._stop, self._file, f"{path} of --jsonl")
            except OSError as error:
                raise UsageError(
                    f"--jsonl cannot write {path}: {error.strerror}. Use a file in a writable folder, or - for "
                    "standard output."
                ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        try:
            if self._progress is not None:
                self._put({"summary": self._progress.summary().as_record()})
        finally:
            if self._file is not None:
                self._file.close()

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Write one line for each region."""
        age_now_s = self._clock() - prediction.frame.captured_at
        self._progress = progress
        for each in prediction.by_region:
            self._put(record(each, age_now_s, datetime.now(UTC)))

    def _put(self, line: dict[str, Any]) -> None:
        assert self._output is not None
        text = printable_json(line, ascii_only=not self._output.is_unicode) + "\n"
        try:
            self._output.write(text)
            self._whole_bytes += len(text.encode())
        except KdedgeError as error:
            self._progress = None
            if self._file is None:
                raise
            # Remove the partial line. Not possible for pipes.
            with suppress(OSError):
                os.truncate(self._target, self._whole_bytes)
            raise KdedgeError(f"{error} All lines before it are complete.") from error


def _fractions(box: tuple[int, int, int, int], frame: Frame) -> list[float]:
    height, width = frame.sample.shape[:2]
    return [round(edge / side, 4) for edge, side in zip(box, (width, height, width, height), strict=True)]


def _heat(prediction: Prediction) -> dict[str, float | None] | None:
    if prediction.heat is None:
        return None
    values = {key.removesuffix("_frac"): value for key, value in asdict(prediction.heat).items()}
    return {key: None if value is None else round(value, 4) for key, value in values.items()}

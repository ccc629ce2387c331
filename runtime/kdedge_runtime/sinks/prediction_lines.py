"""One line of text per sample on standard output."""

import threading
from types import TracebackType
from typing import Self

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.output_stream import OutputStream
from kdedge_runtime.util.printable import printable

__all__ = ["PredictionLines", "prediction_text"]


class PredictionLines:
    """Writes the name of each sample with its label and score to standard output."""

    wants_overlay = False

    def __init__(self, stop: threading.Event) -> None:
        """Create a sink; `stop` is set when the reader of standard output has exited.

        Raises:
            UsageError: standard output is closed.
        """
        self._output = OutputStream(stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close nothing: every line is flushed."""

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Write the line of a sample, with the predictions for all regions."""
        regions = "  ".join(prediction_text(each) for each in prediction.by_region)
        self._output.write(f"{printable(prediction.frame.name)}  {regions}\n")


def prediction_text(prediction: Prediction) -> str:
    """Return label and score of a prediction, with its region and, if it is unknown, the nearest class."""
    region = "" if prediction.region is None else f"{prediction.region.name}: "
    score = f"({prediction.nearest_text})" if prediction.unknown else prediction.score_text
    return printable(f"{region}{prediction.answer} {score}")

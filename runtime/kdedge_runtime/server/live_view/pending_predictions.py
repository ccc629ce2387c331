"""Predictions of posted samples, for which HTTP clients wait."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from kdedge_runtime.errors import SourceError
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sources.source import PostedSource

__all__ = ["PendingPredictions"]

_CLOSED = "The run has ended."


class PendingPredictions:
    """Hands the run's predictions to the clients that posted the samples.

    A response is thus the prediction of the run itself, with its settings, and no sample is predicted twice.
    """

    def __init__(self, source: PostedSource) -> None:
        """Create the exchange for a source of posted samples."""
        self._source = source
        self._changing = threading.Lock()
        self._pending: dict[int, Future[Prediction]] = {}
        self._is_closed = False

    def predict(self, values: Mapping[str, Any], timeout_s: float) -> Prediction:
        """Add a sample to the run and return its prediction.

        A sample that still waits after the timeout is withdrawn, so that an overloaded run recovers.

        Args:
            values: sample as JSON values.
            timeout_s: maximum time to wait in seconds.

        Raises:
            UsageError: the sample cannot be read.
            SourceError: too many samples wait, the run has ended, or the prediction took too long.
        """
        frame, pending = self._source.read(values), Future[Prediction]()
        with self._changing:  # so that the run publishes no prediction before its client is registered
            if self._is_closed:
                raise SourceError(_CLOSED)
            self._source.add(frame)
            self._pending[frame.index] = pending
        try:
            return pending.result(timeout_s)
        except TimeoutError:
            self._source.withdraw(frame)
            raise SourceError(
                f"No prediction within {timeout_s:g} s. Post fewer samples at a time, or use a faster --method."
            ) from None
        finally:
            with self._changing:
                self._pending.pop(frame.index, None)

    def publish(self, prediction: Prediction) -> None:
        """Return a prediction to the client that posted its sample, if one waits."""
        with self._changing:
            pending = self._pending.pop(prediction.frame.index, None)
        if pending is not None:
            pending.set_result(prediction)

    def close(self) -> None:
        """Release all clients with an error."""
        with self._changing:
            self._is_closed = True
            waiting = list(self._pending.values())
            self._pending.clear()
        for pending in waiting:
            pending.set_exception(SourceError(_CLOSED))

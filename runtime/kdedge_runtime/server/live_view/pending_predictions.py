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

        Args:
            values: sample as JSON values.
            timeout_s: maximum time to wait in seconds.

        Raises:
            UsageError: the sample cannot be read.
            SourceError: too many samples wait, the run has ended, or the prediction took too long.
        """
        with self._changing:  # until the client is registered, so that no prediction is missed
            if self._is_closed:
                raise SourceError(_CLOSED)
            frame = self._source.post(values)
            pending = self._pending[frame.index] = Future()
        try:
            return pending.result(timeout_s)
        except TimeoutError:
            raise SourceError(
                f"No prediction within {timeout_s:.0f} s. Post fewer samples at a time, or use a faster --method."
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

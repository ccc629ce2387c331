"""Recording of unknown frames to a feedback file, for naming and training."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from kdedge_runtime.feedback import FeedbackError, FeedbackStore, Verdict
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.stream.statistics import RunProgress

__all__ = ["UnknownFrames"]

_log = logging.getLogger(__name__)
_EVERY_S = 10.0
"""Minimum interval between two unknown frames of a region, in seconds."""


class UnknownFrames:
    """Stores at most one unknown frame every ten seconds for each region, also if known frames are in between."""

    wants_overlay = False

    def __init__(
        self, path: str | Path, cap_mb: float, model_sha256: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create a sink; the file is opened on entering.

        Args:
            path: SQLite file, see `FeedbackStore`.
            cap_mb: maximum size of the file in MB.
            model_sha256: SHA-256 of the model file.
            clock: monotonic clock in seconds.
        """
        self._path, self._cap_mb = path, cap_mb
        self._model_sha256 = model_sha256
        self._clock = clock
        self._stored_at: dict[str | None, float] = {}
        self._has_warned = False

    def __enter__(self) -> Self:
        self._store = FeedbackStore.open(self._path, self._cap_mb)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._store.close()

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Store the frame, or its unknown regions. A full disk does not end the run."""
        now = self._clock()
        for each in prediction.by_region:
            if each.unknown and now - self._stored_at.get(each.region_name, -math.inf) >= _EVERY_S:
                self._stored_at[each.region_name] = now
                self._add(each)

    def _add(self, prediction: Prediction) -> None:
        try:
            self._store.add(Verdict.of(prediction, "unknown", model_sha256=self._model_sha256))
        except FeedbackError as error:
            if not self._has_warned:
                _log.warning("Unknown frames are not recorded: %s", error)
            self._has_warned = True

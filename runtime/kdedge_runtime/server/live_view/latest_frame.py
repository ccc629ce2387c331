"""Latest prediction, handed to HTTP clients without blocking the inference loop."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.server.live_view.history import ConfidenceHistory
from kdedge_runtime.server.live_view.sent_frames import SentFrames
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.images import encode_jpeg

__all__ = ["FRESH_S", "LatestFrame", "PublishedFrame", "EncodedFrame"]

FRESH_S = 10.0
"""Maximum age of the latest prediction of a healthy run, in seconds."""
_JPEG_QUALITY = 80
_MIN_INTERVAL_S = 1 / 15
"""Minimum interval between images in seconds. Faster drawing would only take CPU time from the model."""
_MAX_SHARE = 0.02
"""Maximum share of one core for encoding and sending. With many clients, images are sent less often."""
_LEASE_S = 1.0
"""Time in seconds that a polling client counts as watching after a request."""


@dataclass(frozen=True)
class PublishedFrame:
    """Published prediction with its serial number."""

    serial: int
    """Serial number of the prediction, from 1."""
    prediction: Prediction
    progress: RunProgress
    pinned_at: float


@dataclass(frozen=True)
class EncodedFrame:
    """Encoded overlay."""

    serial: int
    jpeg: bytes


class LatestFrame:
    """Holds the latest prediction. The run writes; any number of clients wait and read."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, draw: Callable[[Prediction], Pixels] | None = None
    ) -> None:
        """Create a holder without a frame.

        Args:
            clock: monotonic clock in seconds.
            draw: function that draws samples that other programs post at any time, so that the newest is shown also if
                none follows; None for a stream, whose overlays the run draws.
        """
        self._draw = draw
        self.shown = SentFrames()
        self.histories: defaultdict[str | None, ConfidenceHistory] = defaultdict(ConfidenceHistory)
        """Confidence by region; None is the whole frame."""
        self.viewers = 0
        self._clock = clock
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._encoded = EncodedFrame(0, b"")
        self._notice: PublishedFrame | None = None
        self._drawn: PublishedFrame | None = None
        self._due_at = 0.0
        self._encoding_s = self._cost_s = 0.0
        self._predicted_at = clock()
        self._leased_until = -1.0
        self._closed = False

    @property
    def newest(self) -> PublishedFrame | None:
        """Latest prediction; None before the first."""
        return self._notice

    @property
    def is_watched(self) -> bool:
        """True if a client is watching."""
        return self.viewers > 0 or self._clock() < self._leased_until

    @property
    def is_due(self) -> bool:
        """True if the next prediction should include its overlay."""
        return self._draw is None and self.is_watched and self._clock() >= self._due_at

    def note_cost(self, sending_s: float) -> None:
        """Record the CPU time used to send an image to all clients."""
        self._cost_s = sending_s

    def publish(self, prediction: Prediction, progress: RunProgress) -> None:
        """Publish the latest prediction and wake waiting clients."""
        now = self._clock()
        for each in prediction.by_region:
            self.histories[each.region_name].add(now, each.answer, each.score if each.share is None else each.share)
        with self._changed:
            serial = 1 if self._notice is None else self._notice.serial + 1
            self._notice = PublishedFrame(serial, prediction, progress, now)
            self._predicted_at = now
            if self._draw is not None:
                self._changed.notify_all()
            elif prediction.overlay is not None and now >= self._due_at:
                self._drawn = self._notice
                self._due_at = now + self._interval_s()
                self._changed.notify_all()

    def close(self) -> None:
        """Release all waiting clients."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Request overlays within the block."""
        with self._changed:
            self.viewers += 1
        try:
            yield
        finally:
            with self._changed:
                self.viewers -= 1

    def renew_lease(self) -> None:
        """Request overlays for another second, for a polling client."""
        self._leased_until = self._clock() + _LEASE_S

    def next_image(self, after: int, timeout_s: float) -> EncodedFrame | None:
        """Wait for an overlay with a serial number above `after`. A number above all existing ones counts as 0.

        Returns:
            The encoded overlay; None if the run has ended or the wait timed out.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            if self._notice is None or after > self._notice.serial:
                after = 0  # from a longer earlier run
            while (notice := self._showable(after)) is None:
                remaining = deadline - time.monotonic()
                if self._closed or remaining <= 0:
                    return None
                pause = self._due_at - self._clock()
                self._changed.wait(min(remaining, pause) if self._draw is not None and pause > 0 else remaining)
        # Outside the condition, so that the run is not blocked. The first client encodes each image for all.
        with self._encoding:
            if self._encoded.serial < notice.serial:
                started = time.thread_time()
                overlay = notice.prediction.overlay if self._draw is None else self._draw(notice.prediction)
                assert overlay is not None
                self._encoded = EncodedFrame(notice.serial, encode_jpeg(overlay, _JPEG_QUALITY))
                self._encoding_s = time.thread_time() - started
                if self._draw is not None:
                    self._due_at = self._clock() + self._interval_s()
                self.shown.add(notice.serial, notice.prediction)
            return self._encoded

    def _interval_s(self) -> float:
        return max(_MIN_INTERVAL_S, (self._encoding_s + self._cost_s) / _MAX_SHARE)

    def _showable(self, after: int) -> PublishedFrame | None:
        """Return the newest prediction with an image and a serial number above `after`; None if there is none yet."""
        if self._draw is not None:
            is_due = self._notice is not None and self._notice.serial > after and self._clock() >= self._due_at
            return self._notice if is_due else None
        drawn = self._drawn
        # A drawing for a client that has since disconnected is too old. Not by capture time: an explanation may take
        # longer than the polling interval.
        is_new = drawn is not None and drawn.serial > after and self._clock() - drawn.pinned_at <= _LEASE_S
        return drawn if is_new else None

    def health(self) -> tuple[bool, float]:
        """Return True if the run is healthy, and the seconds since the last prediction (or the start)."""
        silence_s = self._clock() - self._predicted_at
        return silence_s < FRESH_S, silence_s

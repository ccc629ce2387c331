"""Sink that publishes predictions to an MQTT broker when they change."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Self

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sinks.mqtt.broker_address import BrokerAddress
from kdedge_runtime.sinks.mqtt.connection import BrokerConnection
from kdedge_runtime.sinks.mqtt.home_assistant import OFFLINE, ONLINE, DeviceTopics, RegionState, state_payload
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.images import encode_jpeg

__all__ = ["MqttPublisher"]

_STEP = 0.05
"""Change of the probability or similarity that is published."""
_MIN_INTERVAL_S = 1.0
"""Shortest time between two states of a region in seconds."""
_SNAPSHOT_S = 2.0
"""Shortest time between two snapshots in seconds."""
_SNAPSHOT_REFRESH_S = 60.0
"""Time in seconds after which a snapshot is replaced although no label changed."""
_STALE_S = 30.0
"""Time without a prediction in seconds, after which the device is reported as unavailable."""
_JPEG_QUALITY = 80


class MqttPublisher:
    """Publishes retained states, snapshots and availability, and announces them to Home Assistant.

    A state is published when the label changes or the probability or similarity by 0.05, at most once a second for
    each region. A snapshot is the overlay after a change of a label, at most every 2 s, and at least once a minute.
    The device is unavailable before the first prediction, after 30 s without one, and when the run has ended or
    lost the broker. The broker never slows the run: values are handed over, and only the newest is kept while it is
    away.
    """

    def __init__(
        self,
        address: BrokerAddress,
        model: str,
        regions: Sequence[str] = (),
        score_name: str = "probability",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a sink. The broker is connected on entering.

        Args:
            address: broker and topic.
            model: name of the model file.
            regions: names of the regions; empty for the whole frame.
            score_name: name of the model's scores, see `Task`.
            clock: monotonic clock in seconds.

        Raises:
            MissingDependency: paho-mqtt is not installed.
        """
        self._topics = DeviceTopics(address.topic, tuple(regions) or (None,), score_name)
        self._clock = clock
        self._connection = BrokerConnection(
            address,
            self._topics.client_id,
            will=(self._topics.status, OFFLINE),
            first=self._topics.announcements(model),
            owned=self._topics.discovery_pattern,
            leftovers=self._topics.leftovers,
            tick=self._check_stale,
        )
        self._published: dict[str | None, tuple[RegionState, float]] = {}
        """State that was published last for each region, and its time in seconds."""
        self._latest: tuple[Prediction, ...] = ()
        self._is_online = False
        self._predicted_at_s = clock()
        self._needs_snapshot = True
        self._snapshot_at_s = -float("inf")

    @property
    def wants_overlay(self) -> bool:
        """True if a snapshot is due and the broker can receive it."""
        elapsed_s = self._clock() - self._snapshot_at_s
        is_due = elapsed_s >= (_SNAPSHOT_S if self._needs_snapshot else _SNAPSHOT_REFRESH_S)
        return is_due and self._connection.is_connected

    def __enter__(self) -> Self:
        self._connection.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        for prediction in self._latest:
            before, _ = self._published[prediction.region_name]
            if before.differs(RegionState.of(prediction), _STEP):
                self._publish(prediction)
        self._connection.close()

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Hand over what has changed, without waiting for the broker."""
        now_s = self._clock()
        self._latest = prediction.by_region
        for each in self._latest:
            state = RegionState.of(each)
            before, before_s = self._published.get(each.region_name, (None, 0.0))
            if before is None or (now_s - before_s >= _MIN_INTERVAL_S and before.differs(state, _STEP)):
                self._needs_snapshot |= before is None or before.has_other_answer(state)
                self._publish(each)
        if self.wants_overlay and prediction.overlay is not None:
            self._connection.put(self._topics.snapshot, partial(encode_jpeg, prediction.overlay, _JPEG_QUALITY))
            self._needs_snapshot, self._snapshot_at_s = False, now_s
        self._predicted_at_s = now_s
        if not self._is_online:
            self._connection.put(self._topics.status, ONLINE)
            self._is_online = True

    def _publish(self, prediction: Prediction) -> None:
        now_s = self._clock()
        at = datetime.now(UTC) - timedelta(seconds=now_s - prediction.frame.captured_at)
        self._connection.put(self._topics.state(prediction.region_name), state_payload(prediction, at))
        self._published[prediction.region_name] = RegionState.of(prediction), now_s

    def _check_stale(self) -> None:
        """Report the device as unavailable if the camera delivers nothing; called in the connection's thread."""
        if self._is_online and self._clock() - self._predicted_at_s > _STALE_S:
            self._connection.put(self._topics.status, OFFLINE)
            self._is_online = False  # last, so that a prediction in between is followed by another one that corrects it

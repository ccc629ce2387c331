"""Publishing to a real broker: values that arrive, change and stay."""

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from broker import Broker, Subscriber, until
from PIL import Image
from publishing import address_of, labels_of, prediction_of
from toy_predictions import in_regions, toy_prediction

from kdedge_runtime.sinks.mqtt import MqttPublisher
from kdedge_runtime.stream.statistics import RunProgress


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_everything_is_retained_and_offline_at_the_end(broker: Broker, progress: RunProgress) -> None:
    with Subscriber(broker) as live, MqttPublisher(address_of(broker), "a.onnx") as sink:
        until(lambda: len([topic for topic in live.retained if topic.startswith("homeassistant/")]) == 4)
        assert live.retained["home/porch/status"] == b"offline", "available with the first prediction"
        assert sink.wants_overlay
        sink.write(prediction_of("open", 0.9), progress)
        until(lambda: live.retained.get("home/porch/status") == b"online")
        assert not sink.wants_overlay, "the snapshot was just taken"
        assert np.asarray(Image.open(BytesIO(live.retained["home/porch/snapshot"]))).shape == (48, 64, 3)
    with Subscriber(broker) as later:
        until(lambda: len(later.retained) == 7)
        assert later.retained["home/porch/status"] == b"offline"
        assert json.loads(later.retained["home/porch/state"])["label"] == "open"
        (camera,) = (json.loads(value) for topic, value in later.retained.items() if "/camera/" in topic)
        assert camera["topic"] == "home/porch/snapshot"


def test_only_changes_are_published_and_rate_is_limited(broker: Broker, progress: RunProgress, clock: Clock) -> None:
    with Subscriber(broker) as live:
        with MqttPublisher(address_of(broker), "a.onnx", clock=clock) as sink:
            for label, share, after_s, published in (
                ("open", 0.90, 0, 1),
                ("open", 0.90, 5, 1),  # nothing new
                ("open", 0.86, 5, 1),  # less than 5 points
                ("open", 0.84, 5, 2),  # 6 points in sum
                ("shut", 0.84, 0.5, 2),  # too soon
                ("shut", 0.80, 0.6, 3),  # late enough, with the newest value
                ("open", 0.80, 0.1, 3),  # too soon, but the last one
            ):
                clock.now_s += after_s
                sink.write(prediction_of(label, share), progress)
                until(lambda count=published: len(labels_of(live)) >= count)  # only the newest value is kept
        until(lambda: b"offline" in live.of("home/porch/status"))
    assert labels_of(live) == [("open", 0.9), ("open", 0.84), ("shut", 0.8), ("open", 0.8)]


def test_snapshot_follows_a_change_and_is_refreshed(broker: Broker, progress: RunProgress, clock: Clock) -> None:
    with MqttPublisher(address_of(broker), "a.onnx", clock=clock) as sink:
        due = []
        for label, after_s in (("open", 0), ("open", 30), ("shut", 1), ("shut", 1), ("shut", 59), ("shut", 2)):
            clock.now_s += after_s
            prediction = prediction_of(label, 0.9)
            due.append(sink.wants_overlay)
            sink.write(prediction if due[-1] else replace(prediction, overlay=None), progress)
    assert due == [True, False, False, True, False, True]


def test_each_region_has_its_state(broker: Broker, progress: RunProgress) -> None:
    prediction = in_regions(toy_prediction(), door="open", window="shut")
    with Subscriber(broker) as live:
        with MqttPublisher(address_of(broker), "a.onnx", ("door", "window")) as sink:
            sink.write(prediction, progress)
        until(lambda: b"offline" in live.of("home/porch/status"))
    assert labels_of(live, "home/porch/door/state") == [("open", 0.75)]
    assert labels_of(live, "home/porch/window/state") == [("shut", 0.5)]


def test_entities_of_earlier_regions_are_removed(broker: Broker, progress: RunProgress) -> None:
    with MqttPublisher(address_of(broker), "a.onnx", ("door", "window")):
        pass
    with Subscriber(broker) as live:
        others = "homeassistant/sensor/other/door_label/config"
        live.publish(others, b"{}")
        until(lambda: len([topic for topic in live.retained if "window" in topic]) == 3)
        with MqttPublisher(address_of(broker), "a.onnx", ("door",)):
            until(lambda: not [topic for topic in live.retained if "window" in topic])
        kept = {topic for topic in live.retained if topic.startswith("homeassistant/")}
    assert len(kept) == 1 + 3 + 1 and others in kept


def test_states_of_earlier_regions_are_removed(broker: Broker, progress: RunProgress) -> None:
    """A run whose topic is below that of another keeps its state, although it has the same form."""
    with MqttPublisher(address_of(broker), "a.onnx", ("door", "window")) as sink:
        sink.write(in_regions(toy_prediction(), door="open", window="shut"), progress)
    with MqttPublisher(address_of(broker, topic="home/porch/gate"), "a.onnx") as sink:
        sink.write(prediction_of("open", 0.9), progress)
    with Subscriber(broker) as live:
        live.publish("home/porch/lamp/state", b"on")
        states = {f"home/porch/{name}/state" for name in ("door", "window", "gate", "lamp")}
        until(lambda: states <= live.retained.keys())
        with MqttPublisher(address_of(broker), "a.onnx", ("door",)):
            until(lambda: not [topic for topic in live.retained if "window" in topic])
        until(lambda: live.of("home/porch/status")[-1:] == [b"offline"])
        assert {topic for topic in live.retained if topic.endswith("/state")} == states - {"home/porch/window/state"}


def test_silent_camera_is_unavailable(broker: Broker, progress: RunProgress, clock: Clock) -> None:
    with Subscriber(broker) as live, MqttPublisher(address_of(broker), "a.onnx", clock=clock) as sink:
        sink.write(prediction_of("open", 0.9), progress)
        until(lambda: live.of("home/porch/status")[-1:] == [b"online"])
        clock.now_s += 31
        until(lambda: live.of("home/porch/status")[-1:] == [b"offline"])
        sink.write(prediction_of("open", 0.9), progress)
        until(lambda: live.of("home/porch/status")[-1:] == [b"online"])

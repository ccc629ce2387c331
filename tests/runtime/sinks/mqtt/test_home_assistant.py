"""Discovery payloads and states for Home Assistant."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from toy_predictions import toy_prediction

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sinks.mqtt.home_assistant import DeviceTopics, RegionState, state_payload

NOW = datetime(2026, 5, 1, 12, 0, 0, 250_000, UTC)
STATE_KEYS = {"name", "state_topic", "value_template", "icon", "unique_id", "availability_topic", "device", "origin"}
KEYS = {
    "camera/snapshot": STATE_KEYS - {"state_topic", "value_template"} | {"topic"},
    "sensor/label": STATE_KEYS | {"json_attributes_topic"},
    "sensor/probability": STATE_KEYS | {"state_class", "suggested_display_precision", "unit_of_measurement"},
    "binary_sensor/unknown": STATE_KEYS,
}
"""Settings of each platform that are used, all of them in Home Assistant's documentation of the platform."""


def _payloads(topics: DeviceTopics) -> dict[str, dict]:
    """Return the payloads by `PLATFORM/ENTITY`."""
    found = {}
    for topic, payload in topics.announcements("model.onnx").items():
        # Home Assistant accepts <prefix>/<component>/<node_id>/<object_id>/config of these characters only.
        parts = re.fullmatch(r"homeassistant/([a-z_]+)/([a-zA-Z0-9_-]+)/([a-zA-Z0-9_-]+)/config", topic)
        assert parts is not None, topic
        found[f"{parts[1]}/{parts[3]}"] = json.loads(payload)
    return found


def test_whole_frame_is_one_device_with_four_entities() -> None:
    payloads = _payloads(DeviceTopics("home/porch", (None,)))
    assert {key: set(value) for key, value in payloads.items()} == KEYS
    assert payloads["camera/snapshot"]["topic"] == "home/porch/snapshot"
    assert (
        payloads["sensor/label"]["state_topic"]
        == payloads["binary_sensor/unknown"]["state_topic"]
        == "home/porch/state"
    )
    assert {value["availability_topic"] for value in payloads.values()} == {"home/porch/status"}
    (device,) = {json.dumps(value["device"]) for value in payloads.values()}
    assert (json.loads(device)["name"], json.loads(device)["model"]) == ("porch", "model.onnx")


def test_each_region_has_its_entities() -> None:
    topics = DeviceTopics("porch", ("door", "bin left"))
    payloads = _payloads(topics)
    assert set(payloads) == {
        "camera/snapshot",
        *(f"{kind}/{region}_{name}" for region in ("door", "bin_left") for kind, name in (
            ("sensor", "label"), ("sensor", "probability"), ("binary_sensor", "unknown"))),
    }  # fmt: skip
    assert payloads["sensor/bin_left_label"]["name"] == "bin left label"
    assert payloads["sensor/bin_left_label"]["state_topic"] == topics.state("bin left") == "porch/bin_left/state"


def test_region_names_with_braces_are_kept() -> None:
    payloads = _payloads(DeviceTopics("porch", ("gate {1}", "{", "{0}")))
    names = {value["name"] for key, value in payloads.items() if key.endswith("_label")}
    assert names == {"gate {1} label", "{ label", "{0} label"}


def test_identifiers_are_unique_whatever_the_names_contain() -> None:
    names = ("a b", "a_b", "A b", "a/b", "#", "+", "ü", "ö", "state", "snapshot", "status", "ok")
    topics = DeviceTopics("home/porch", names)
    states = [topics.state(name) for name in names]
    assert len(set(states)) == len(names)
    assert not {"home/porch/status", "home/porch/snapshot"} & set(states)
    assert all(re.fullmatch(r"home/porch/[a-z0-9_]+/state", state) for state in states)
    identifiers = [value["unique_id"] for value in _payloads(topics).values()]
    assert len(set(identifiers)) == len(identifiers) == 1 + 3 * len(names)
    nodes = {DeviceTopics(prefix, (None,)).node for prefix in ("home/porch", "home-porch", "home_porch", "ü", "ö")}
    assert len(nodes) == 5


def test_payloads_do_not_depend_on_the_run() -> None:
    first, again = (DeviceTopics("porch", ("door",)).announcements("a.onnx") for _ in range(2))
    assert first == again


def test_leftovers_are_own_topics_that_this_run_does_not_have() -> None:
    before, now = DeviceTopics("home/porch", (None, "door", "bin")), DeviceTopics("home/porch", ("door",))
    found = {one for item in before.announcements("a.onnx").items() for one in now.leftovers(*item)}
    kept = {topic for topic in before.announcements("a.onnx") if topic in now.announcements("a.onnx")}
    assert len(kept) == 4
    assert found == {*before.announcements("a.onnx"), "home/porch/state", "home/porch/bin/state"} - kept


@pytest.mark.parametrize(
    "payload",
    [
        b"no JSON",
        b"\xff",
        b"[1]",
        b"1",
        b"{}",
        b"[" * 100_000,
        b'{"state_topic": 7}',
        b'{"state_topic": "other/state"}',
        b'{"state_topic": "home/porch/status"}',
        b'{"state_topic": "home/porch/a/b/state"}',
        b'{"state_topic": "home/porch/#"}',
        b'{"state_topic": "home/porch/door/state"}',
    ],
    ids=range(12),
)
def test_topics_of_others_are_no_leftovers(payload: bytes) -> None:
    topics = DeviceTopics("home/porch", ("door",))
    topic = f"homeassistant/sensor/{topics.node}/old_label/config"
    assert topics.leftovers(topic, payload) == (topic,)


def test_state_has_label_probability_and_unknown() -> None:
    prediction = toy_prediction()
    assert json.loads(state_payload(prediction, NOW)) == {
        "label": "sign, “stop”",
        "p": 0.9123,
        "unknown": False,
        "ranking": [{"label": "sign, “stop”", "p": 0.9123}, {"label": "tree", "p": 0.05}],
        "explained": "tree",
        "time": "2026-05-01T12:00:00.250+00:00",
    }
    undrawn = replace(prediction, saliency_map=None, heat=None)
    assert json.loads(state_payload(undrawn, NOW))["explained"] is None


def test_class_names_that_topics_cannot_hold_are_payload_only() -> None:
    label = "#/+ \x00\ud800".encode("utf-8", "replace").decode()
    state = json.loads(state_payload(replace(toy_prediction(), ranking=((label, 0.5), ("", 0.1))), NOW))
    assert (state["label"], state["ranking"][1]["label"]) == (label, "")


def test_templates_read_the_state() -> None:
    """Home Assistant renders the templates with Jinja."""
    jinja2 = pytest.importorskip("jinja2", reason="needs Jinja")
    payloads = _payloads(DeviceTopics("porch", (None,)))

    def rendered(entity: str, prediction: Prediction, **changes: object) -> str:
        state = json.loads(state_payload(prediction, NOW)) | changes
        return jinja2.Template(payloads[entity]["value_template"]).render(value_json=state)

    prediction = toy_prediction()
    assert rendered("sensor/label", prediction) == "sign, “stop”"
    assert rendered("sensor/label", replace(prediction, ranking=(("x" * 300, 0.9),))) == "x" * 255
    assert rendered("sensor/label", replace(prediction, unknown=True)) == "unknown"
    assert rendered("sensor/probability", prediction) == "91.2"
    assert rendered("sensor/probability", prediction, p=None) == "None", "Home Assistant's word for unknown"
    assert rendered("binary_sensor/unknown", prediction) == "OFF"
    assert rendered("binary_sensor/unknown", prediction, unknown=True) == "ON"


def test_answer_is_label_and_unknown() -> None:
    state = RegionState("open", 0.9, unknown=False)
    assert not state.differs(RegionState("open", 0.86, unknown=False), 0.05)
    assert state.differs(RegionState("open", 0.84, unknown=False), 0.05)
    assert not state.has_other_answer(RegionState("open", 0.1, unknown=False))
    for other in (RegionState("shut", 0.9, unknown=False), RegionState("open", 0.9, unknown=True)):
        assert state.has_other_answer(other) and state.differs(other, 0.05)
    assert not RegionState("open", None, unknown=False).differs(RegionState("open", None, unknown=False), 0.05)

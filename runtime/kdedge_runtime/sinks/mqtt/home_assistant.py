"""Topics and payloads for Home Assistant's MQTT discovery.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kdedge_runtime import __version__
from kdedge_runtime.familiarity import UNKNOWN
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.printable import printable_json

__all__ = ["OFFLINE", "ONLINE", "DeviceTopics", "RegionState", "state_payload"]

ONLINE, OFFLINE = b"online", b"offline"
"""Payloads of the availability topic, Home Assistant's defaults."""
_DISCOVERY = "homeassistant"
_MAX_STATE_LENGTH = 255
"""Maximum length of a state in Home Assistant, in characters."""
_LABEL = f"{{{{ '{UNKNOWN}' if value_json.unknown else value_json.label[:{_MAX_STATE_LENGTH}] }}}}"
"""Automations on a class must not start for unknown objects, whose `label` is the nearest class."""
_PROBABILITY = "{{ (100 * value_json.p) | round(1) if value_json.p is number else none }}"
_SIMILARITY = "{{{{ value_json.{0} | round(2) if value_json.{0} is number else none }}}}"
_UNKNOWN = "{{ 'ON' if value_json.unknown else 'OFF' }}"


@dataclass(frozen=True)
class RegionState:
    """Values of a frame or region whose change is published."""

    label: str
    share: float | None
    """Probability or similarity of the label, in [0, 1]; None for an unbounded score."""
    unknown: bool
    """True if the frame or region belongs to none of the classes; the label is then the nearest one."""

    @classmethod
    def of(cls, prediction: Prediction) -> "RegionState":
        """Return the state of a frame or region."""
        return cls(prediction.label, prediction.share, prediction.unknown)

    def has_other_answer(self, other: "RegionState") -> bool:
        """Return True if label or `unknown` differ."""
        return (self.label, self.unknown) != (other.label, other.unknown)

    def differs(self, other: "RegionState", step: float) -> bool:
        """Return True if the answer differs, or the share by at least `step`."""
        return self.has_other_answer(other) or abs((self.share or 0.0) - (other.share or 0.0)) >= step


def state_payload(prediction: Prediction, at: datetime) -> bytes:
    """Return the state of a frame or region as JSON.

    Args:
        prediction: prediction for the frame or region.
        at: capture time of the frame, with time zone.
    """
    state = RegionState.of(prediction)
    content = {
        "label": state.label,
        prediction.score_key: None if state.share is None else round(prediction.score, 4),
        "unknown": state.unknown,
        "ranking": [{"label": label, prediction.score_key: round(score, 4)} for label, score in prediction.ranking],
        "explained": None if prediction.saliency_map is None else prediction.explained,
        "time": at.isoformat(timespec="milliseconds"),
    }
    return printable_json(content).encode()


@dataclass(frozen=True)
class DeviceTopics:
    """Topics of one run: a device in Home Assistant, with a set of entities for each region."""

    prefix: str
    """Topic below which states and snapshots are published."""
    regions: Sequence[str | None]
    """Names of the regions; None for the whole frame."""
    score_name: str = "probability"
    """Name of the score in the announcements, `probability` or another one without a unit."""

    @property
    def status(self) -> str:
        """Topic of the availability: `online` or `offline`."""
        return f"{self.prefix}/status"

    @property
    def snapshot(self) -> str:
        """Topic of the latest overlay, a JPEG."""
        return f"{self.prefix}/snapshot"

    def state(self, region: str | None) -> str:
        """Return the topic of a region's state, JSON."""
        return f"{self.prefix}/state" if region is None else f"{self.prefix}/{self._ids[region]}/state"

    @property
    def node(self) -> str:
        """Identifier of the device, different for every prefix."""
        return f"kdedge_{_slug(self.prefix)}_{_digest(self.prefix)}"

    @property
    def client_id(self) -> str:
        """Identifier of the client, short enough for every broker: at most 23 bytes."""
        return f"kdedge_{_digest(self.prefix)}"

    @property
    def discovery_pattern(self) -> str:
        """Pattern of the discovery topics of this device, also of regions that earlier runs had."""
        return f"{_DISCOVERY}/+/{self.node}/+/config"

    def leftovers(self, topic: str, payload: bytes) -> tuple[str, ...]:
        """Return the topics that an earlier run of this device left behind, the last one being `topic` itself.

        Only states that the device's own announcement names are returned: others below the prefix may belong to a run
        whose prefix continues this one.

        Args:
            topic: retained topic that matches `discovery_pattern`.
            payload: its payload, an announcement.

        Returns:
            State topic of a region that no longer exists and `topic`; empty if this run announces `topic`.
        """
        if topic in {self._discovery(kind, identifier) for kind, identifier, _ in self._entities()}:
            return ()
        try:
            state = json.loads(payload)["state_topic"]
        except (ValueError, LookupError, TypeError, RecursionError):  # of another program, or without a state
            state = None
        is_own = isinstance(state, str) and re.fullmatch(rf"{re.escape(self.prefix)}/([a-z0-9_]+/)?state", state)
        return (state, topic) if is_own and state not in map(self.state, self.regions) else (topic,)

    def announcements(self, model: str) -> dict[str, bytes]:
        """Return the discovery payloads by topic.

        Args:
            model: name of the model file.
        """
        device = {
            "identifiers": [self.node],
            "name": self.prefix.rpartition("/")[2],
            "manufacturer": "kdedge",
            "model": model,
            "sw_version": __version__,
        }
        shared = {
            "availability_topic": self.status,
            "device": device,
            "origin": {"name": "kdedge", "sw_version": __version__},
        }
        found = {}
        for kind, identifier, entity in self._entities():
            payload = {"unique_id": f"{self.node}_{identifier}", **entity, **shared}
            text = json.dumps(payload, ensure_ascii=False, sort_keys=True)
            found[self._discovery(kind, identifier)] = text.encode()
        return found

    def _discovery(self, kind: str, identifier: str) -> str:
        return f"{_DISCOVERY}/{kind}/{self.node}/{identifier}/config"

    def _entities(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return kind, identifier and settings of every entity."""
        snapshot = {"name": "Snapshot", "topic": self.snapshot, "icon": "mdi:image-search"}
        entities: list[tuple[str, str, dict[str, Any]]] = [("camera", "snapshot", snapshot)]
        for region in self.regions:
            topic = self.state(region)
            before = "" if region is None else f"{self._ids[region]}_"
            label = {"icon": "mdi:tag", "json_attributes_topic": topic, "value_template": _LABEL}
            score: dict[str, Any] = {"state_class": "measurement"}
            if self.score_name == "probability":
                score |= {"icon": "mdi:percent", "suggested_display_precision": 0, "unit_of_measurement": "%"}
                score["value_template"] = _PROBABILITY
            else:
                score |= {"icon": "mdi:approximately-equal", "suggested_display_precision": 2}
                score["value_template"] = _SIMILARITY.format(self.score_name)
            unknown = {"icon": "mdi:help-circle-outline", "value_template": _UNKNOWN}
            for kind, name, settings in (
                ("sensor", "label", label),
                ("sensor", self.score_name, score),
                ("binary_sensor", "unknown", unknown),
            ):
                entities.append((kind, before + name, {"name": _title(region, name), "state_topic": topic, **settings}))
        return entities

    @property
    def _ids(self) -> dict[str, str]:
        """Identifiers of the regions in topics, from names that may contain any character."""
        names = [region for region in self.regions if region is not None]
        slugs = {name: _slug(name) for name in names}
        taken = Counter(slugs.values()) + Counter(("state", "status", "snapshot"))
        return {name: slug if taken[slug] == 1 and slug else f"{slug}_{_digest(name)}" for name, slug in slugs.items()}


def _title(region: str | None, entity: str) -> str:
    return entity.capitalize() if region is None else f"{region} {entity}"


def _slug(text: str) -> str:
    """Replace characters that discovery topics cannot hold."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", text).strip("_").lower()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]

"""Predictions and addresses for tests of MQTT."""

import json
from dataclasses import replace

from broker import Broker, Subscriber
from toy_predictions import toy_prediction

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sinks.mqtt import BrokerAddress


def address_of(broker: Broker, **settings: object) -> BrokerAddress:
    return replace(BrokerAddress("127.0.0.1", broker.port, "home/porch"), **settings)


def prediction_of(label: str, share: float, index: int = 0) -> Prediction:
    return replace(toy_prediction(index), ranking=((label, share), ("other", 0.0)))


def labels_of(subscriber: Subscriber, topic: str = "home/porch/state") -> list[tuple[str, float]]:
    states = [json.loads(payload) for payload in subscriber.of(topic)]
    return [(state["label"], state["p"]) for state in states]

"""Predictions on an MQTT broker, announced to Home Assistant.

```
BrokerAddress    parsed --mqtt value, with credentials from the environment
BrokerConnection connection that is kept up in a thread
MqttPublisher    sink
```
"""

from kdedge_runtime.sinks.mqtt.broker_address import BrokerAddress
from kdedge_runtime.sinks.mqtt.publisher import MqttPublisher

__all__ = ["BrokerAddress", "MqttPublisher"]

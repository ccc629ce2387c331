"""Modalities: kinds of input, such as images.

A modality is one `InputSpec` class. Models, streams, sinks and servers use this interface only. `INPUT_SPECS` maps the
value `kind` of a model file to its class; other packages add classes with an entry point of the group
`kdedge_runtime.modalities`.
"""

from collections.abc import Mapping
from typing import Any

from kdedge_runtime.modalities.input_spec import BrowserSensor, InputSpec, Region, Renderer, Sample
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["INPUT_SPECS", "BrowserSensor", "InputSpec", "Region", "Renderer", "Sample", "parse_input"]

INPUT_SPECS: Registry[type[InputSpec]] = Registry(
    "kind of input",
    "kdedge_runtime.modalities",
    {
        "image": "kdedge_runtime.modalities.image:ImageInput",
        "audio": "kdedge_runtime.modalities.audio:AudioInput",
        "timeseries": "kdedge_runtime.modalities.timeseries:TimeseriesInput",
        "tabular": "kdedge_runtime.modalities.tabular:TabularInput",
    },
)
"""Input specification classes by kind."""


def parse_input(values: Mapping[str, Any]) -> InputSpec:
    """Parse the input specification of a model file or a run.

    Args:
        values: JSON object; its `kind` names the modality, `image` if it is missing.

    Raises:
        MissingPlugin: no installed package provides the modality.
        KeyError, TypeError, ValueError: a value is missing or invalid.
    """
    kind = values.get("kind", "image")
    if not isinstance(kind, str):
        raise TypeError(f"expected str, got {type(kind).__name__}")
    try:
        spec = INPUT_SPECS[kind].from_json(values)
    except OverflowError as error:  # an integer beyond the range of floats
        raise ValueError(str(error)) from error
    if spec.kind != kind:
        raise ValueError(f"{type(spec).__name__} has the kind {spec.kind!r}, not {kind!r}")
    return spec

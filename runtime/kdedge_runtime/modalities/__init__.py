"""Modalities: kinds of input, such as images.

A modality is one `InputSpec` class. Models, streams, sinks and servers use this interface only. `INPUT_SPECS` maps the
value `kind` of a model file to its class; other packages add classes with an entry point of the group
`kdedge_runtime.modalities`.
"""

from collections.abc import Mapping
from typing import Any

from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.modalities.input_spec import InputSpec, Renderer, Sample
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["INPUT_SPECS", "InputSpec", "Renderer", "Sample", "parse_input"]

INPUT_SPECS: Registry[type[InputSpec]] = Registry(
    "kdedge_runtime.modalities", {"image": "kdedge_runtime.modalities.image:ImageInput"}
)
"""Input specification classes by kind."""


def parse_input(values: Mapping[str, Any]) -> InputSpec:
    """Parse the input specification of a model file or a run.

    Args:
        values: JSON object; its `kind` names the modality, `image` if it is missing.

    Raises:
        ModelFileError: no installed package provides the modality.
        KeyError, TypeError, ValueError: a value is missing or invalid.
    """
    kind = values.get("kind", "image")
    if not isinstance(kind, str):
        raise TypeError(f"expected str, got {type(kind).__name__}")
    try:
        spec = INPUT_SPECS[kind]
    except KeyError:
        raise ModelFileError(
            f"The model takes samples of the kind {kind[:100]!r}, which no installed package provides. Install the "
            "package of that modality here."
        ) from None
    return spec.from_json(values)

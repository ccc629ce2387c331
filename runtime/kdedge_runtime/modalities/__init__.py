"""Modalities: kinds of input, such as images.

A modality is one `InputSpec` class. Models, streams, sinks and servers use this interface only. `INPUT_SPECS` maps the
value `kind` of a model file to its class; other packages add classes with an entry point of the group
`kdedge_runtime.modalities`.
"""

from kdedge_runtime.modalities.input_spec import InputSpec, Renderer, Sample
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["INPUT_SPECS", "InputSpec", "Renderer", "Sample"]

INPUT_SPECS: Registry[type[InputSpec]] = Registry(
    "kdedge_runtime.modalities", {"image": "kdedge_runtime.modalities.image:ImageInput"}
)
"""Input specification classes by kind."""

"""Modalities at export: the front end in the graph, and the modality's part of validation.

`EXPORT_MODALITIES` maps the kind of an input to its `ExportModality`; other packages add modalities with an entry point
of the group `kdedge_export.modalities`.
"""

from kdedge_export.modalities.export_modality import Corruption, ExportModality
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["EXPORT_MODALITIES", "Corruption", "ExportModality", "modality_of"]

EXPORT_MODALITIES: Registry[ExportModality] = Registry(
    "modality at export",
    "kdedge_export.modalities",
    {
        "image": "kdedge_export.modalities.image:IMAGE",
        "timeseries": "kdedge_export.modalities.timeseries:TIMESERIES",
        "tabular": "kdedge_export.modalities.tabular:TABULAR",
    },
)
"""Modalities by kind."""


def modality_of(spec: InputSpec) -> ExportModality:
    """Return the modality of an input, with what it needs to know of it; see `ExportModality.for_input`."""
    return EXPORT_MODALITIES[spec.kind].for_input(spec)

"""Tasks at export: agreement of two models, and accuracy.

`EXPORT_TASKS` maps the task of a model file to its `ExportTask`; other packages add tasks with an entry point of the
group `kdedge_export.tasks`.
"""

from kdedge_export.tasks.export_task import ExportTask
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["EXPORT_TASKS", "ExportTask"]

EXPORT_TASKS: Registry[ExportTask] = Registry(
    "kdedge_export.tasks", {"classify": "kdedge_export.tasks.classification:CLASSIFICATION"}
)
"""Tasks by name."""

"""Tasks at export: agreement of two models, and accuracy.

`EXPORT_TASKS` maps the task of a model file to its `TaskMetrics`; other packages add tasks with an entry point of the
group `kdedge_export.tasks`.
"""

from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["EXPORT_TASKS", "TaskMetrics"]

EXPORT_TASKS: Registry[TaskMetrics] = Registry(
    "task at export",
    "kdedge_export.tasks",
    {
        "classify": "kdedge_export.tasks.classification:CLASSIFICATION",
        "embedding": "kdedge_export.tasks.embedding:EMBEDDING",
        "regression": "kdedge_export.tasks.regression:REGRESSION",
    },
)
"""Tasks by name."""

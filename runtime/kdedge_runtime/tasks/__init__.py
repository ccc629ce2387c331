"""Tasks: interpretations of the logits, such as classification.

`TASKS` maps the value `task` of a model file to its task; other packages add tasks with an entry point of the group
`kdedge_runtime.tasks`.
"""

from kdedge_runtime.tasks.task import Task
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["TASKS", "Task"]

TASKS: Registry[Task] = Registry(
    "task",
    "kdedge_runtime.tasks",
    {
        "classify": "kdedge_runtime.tasks.classification:CLASSIFICATION",
        "embedding": "kdedge_runtime.tasks.similarity:SIMILARITY",
        "regression": "kdedge_runtime.tasks.regression:REGRESSION",
    },
)
"""Tasks by name."""

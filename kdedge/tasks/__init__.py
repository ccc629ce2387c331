"""Tasks at training: targets, validation metrics and the best epoch.

`TRAINING_TASKS` maps the task of a dataset to its `TrainingTask`; other packages add tasks with an entry point of the
group `kdedge.tasks`.
"""

from kdedge.tasks.training_task import TrainingTask
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["TRAINING_TASKS", "TrainingTask"]

TRAINING_TASKS: Registry[TrainingTask] = Registry(
    "task at training",
    "kdedge.tasks",
    {
        "classify": "kdedge.tasks.classification:CLASSIFICATION",
        "embedding": "kdedge.tasks.embedding:EMBEDDING",
        "regression": "kdedge.tasks.regression:REGRESSION",
    },
)
"""Tasks by name."""

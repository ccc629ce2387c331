"""Distill small classifiers and regressors for images, sounds, time series and tables, with their saliency maps.

Results are accepted wherever a path is:

```
teacher = kdedge.train("data", "resnet18", output="runs/teacher")
student = kdedge.distill("data", teacher, "resnet10w16", output="runs/student")
files = kdedge.export(student, precisions=["int8"])
kdedge.validate(files).require_passed()
kdedge.explain(files, ["photo.jpg"])
```

`DistillationLoss` brings the losses into a training loop of your own.
"""

from typing import TYPE_CHECKING

from kdedge_runtime import __version__ as __version__  # also turns onnxruntime's telemetry off before any import of it
from kdedge_runtime.util.lazy_import import lazy_names

if TYPE_CHECKING:
    from kdedge.pipelines.explanation_pipeline import explain
    from kdedge.pipelines.export_pipeline import export
    from kdedge.pipelines.training_pipeline import Run, distill, train
    from kdedge.pipelines.validation_pipeline import validate
    from kdedge.training.distillation_loss import DistillationLoss

__all__ = ["DistillationLoss", "Run", "distill", "explain", "export", "train", "validate"]

_HOMES = {
    "DistillationLoss": "training.distillation_loss",
    "Run": "pipelines.training_pipeline",
    "distill": "pipelines.training_pipeline",
    "explain": "pipelines.explanation_pipeline",
    "export": "pipelines.export_pipeline",
    "train": "pipelines.training_pipeline",
    "validate": "pipelines.validation_pipeline",
}
# Loaded on first use: torch takes seconds to import.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

"""Distill small image classifiers with saliency-map supervision and export them with their explanation.

Results are accepted wherever a path is:

```
teacher = kdedge.train("data", "resnet18", out="runs/teacher")
student = kdedge.distill("data", teacher, "resnet10w16", out="runs/student")
files = kdedge.export(student, quantize=True)
kdedge.validate(files).require_passed()
kdedge.explain(files, ["photo.jpg"])
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kdedge_runtime import __version__ as __version__  # also turns onnxruntime's telemetry off before any import of it

if TYPE_CHECKING:
    from kdedge.pipelines.explanation_pipeline import explain
    from kdedge.pipelines.export_pipeline import export
    from kdedge.pipelines.training_pipeline import Run, distill, train
    from kdedge.pipelines.validation_pipeline import validate

__all__ = ["Run", "distill", "explain", "export", "train", "validate"]

_HOMES = {
    "Run": "training_pipeline",
    "distill": "training_pipeline",
    "explain": "explanation_pipeline",
    "export": "export_pipeline",
    "train": "training_pipeline",
    "validate": "validation_pipeline",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: torch takes seconds to import.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.pipelines.{_HOMES[name]}"), name)

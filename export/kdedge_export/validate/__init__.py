"""Validation that an exported model keeps the student's predictions and saliency maps.

```python
models = Models(student=deployed, fp32=model, int8=small)
report, evidence = validate(models, ValidationSet(images, labels, targets))
for line in checklist(report.checks):
    print(line)
write_report(report, evidence, Path("report"))
```
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdedge_export.validate.check import Check
    from kdedge_export.validate.check_lines import checklist
    from kdedge_export.validate.comparison import Comparison, MapComparison, compare
    from kdedge_export.validate.evidence import Evidence
    from kdedge_export.validate.footprint import Footprint
    from kdedge_export.validate.gates import Gates
    from kdedge_export.validate.intervals import Interval
    from kdedge_export.validate.predictions import Predictions, predict
    from kdedge_export.validate.report import Data, ModelFacts, ValidationReport, json_schema
    from kdedge_export.validate.subjects import Deployment, Models, Origin, ValidationSet
    from kdedge_export.validate.validation import validate, write_report

__all__ = [
    "Check",
    "Comparison",
    "Data",
    "Deployment",
    "Evidence",
    "Footprint",
    "Gates",
    "Interval",
    "MapComparison",
    "ModelFacts",
    "Models",
    "Origin",
    "Predictions",
    "ValidationReport",
    "ValidationSet",
    "checklist",
    "compare",
    "json_schema",
    "predict",
    "validate",
    "write_report",
]

_HOMES = {
    "Check": "check",
    "Comparison": "comparison",
    "Data": "report",
    "Deployment": "subjects",
    "Evidence": "evidence",
    "Footprint": "footprint",
    "Gates": "gates",
    "Interval": "intervals",
    "MapComparison": "comparison",
    "ModelFacts": "report",
    "Models": "subjects",
    "Origin": "subjects",
    "Predictions": "predictions",
    "ValidationReport": "report",
    "ValidationSet": "subjects",
    "checklist": "check_lines",
    "compare": "comparison",
    "json_schema": "report",
    "predict": "predictions",
    "validate": "validation",
    "write_report": "validation",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that modules without PyTorch, such as `metrics`, import without it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

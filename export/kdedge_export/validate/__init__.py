"""Proof that neither the answer nor the reason was lost on the way from PyTorch to the device.

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
    from kdedge_export.validate.footprint import Footprint
    from kdedge_export.validate.gates import Gates
    from kdedge_export.validate.inputs import Deployment, Models, Origin, ValidationSet
    from kdedge_export.validate.report import Data, ModelFacts, ValidationReport, json_schema
    from kdedge_export.validate.samples import Evidence
    from kdedge_export.validate.text_report import checklist
    from kdedge_export.validate.validation import validate, write_report

__all__ = [
    "Check",
    "Data",
    "Deployment",
    "Evidence",
    "Footprint",
    "Gates",
    "ModelFacts",
    "Models",
    "Origin",
    "ValidationReport",
    "ValidationSet",
    "checklist",
    "json_schema",
    "validate",
    "write_report",
]

_HOMES = {
    "Check": "check",
    "Data": "report",
    "Deployment": "inputs",
    "Evidence": "samples",
    "Footprint": "footprint",
    "Gates": "gates",
    "ModelFacts": "report",
    "Models": "inputs",
    "Origin": "inputs",
    "ValidationReport": "report",
    "ValidationSet": "inputs",
    "checklist": "text_report",
    "json_schema": "report",
    "validate": "validation",
    "write_report": "validation",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that what needs no PyTorch, such as `metrics`, does without.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

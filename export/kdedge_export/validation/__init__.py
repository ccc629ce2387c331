"""Validation that an exported model keeps the student's predictions and saliency maps.

```python
models = Models(student=deployed, fp32=model, converted={"int8": small})
report, evidence = validate(models, ValidationSet(samples, labels, targets))
for line in checklist(report.checks):
    print(line)
write_report(report, evidence, Path("report"))
```
"""

from typing import TYPE_CHECKING

from kdedge_runtime.util.lazy_import import lazy_names

if TYPE_CHECKING:
    from kdedge_export.validation.check import Check
    from kdedge_export.validation.footprint import Footprint
    from kdedge_export.validation.gates import Gates
    from kdedge_export.validation.inputs import Deployment, Models, ValidationSet
    from kdedge_export.validation.model_facts import ModelFacts, Origin
    from kdedge_export.validation.report import Data, ValidationReport, json_schema
    from kdedge_export.validation.samples import SampleGallery
    from kdedge_export.validation.text_report import checklist
    from kdedge_export.validation.validator import validate, write_report

__all__ = [
    "Check",
    "Data",
    "Deployment",
    "SampleGallery",
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
    "SampleGallery": "samples",
    "Footprint": "footprint",
    "Gates": "gates",
    "ModelFacts": "model_facts",
    "Models": "inputs",
    "Origin": "model_facts",
    "ValidationReport": "report",
    "ValidationSet": "inputs",
    "checklist": "text_report",
    "json_schema": "report",
    "validate": "validator",
    "write_report": "validator",
}
# Loaded on first use, so that modules without PyTorch, such as `metrics`, import without it.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

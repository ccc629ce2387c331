"""Proof that neither the answer nor the reason was lost on the way from PyTorch to the device.

```python
report, evidence = validate(student=deployed, fp32=model, int8=small, images=images, targets=targets, labels=labels)
for line in checklist(report.checks):
    print(line)
write_report(report, evidence, Path("report"))
```
"""

from kdedge_export.validate.checklist import checklist
from kdedge_export.validate.compare import Comparison, MapComparison, compare
from kdedge_export.validate.evidence import Evidence
from kdedge_export.validate.gates import Check, Gates
from kdedge_export.validate.predict import Predictions, predict
from kdedge_export.validate.report import ModelFacts, ValidationReport
from kdedge_export.validate.validation import validate, write_report

__all__ = [
    "Check",
    "Comparison",
    "Evidence",
    "Gates",
    "MapComparison",
    "ModelFacts",
    "Predictions",
    "ValidationReport",
    "checklist",
    "compare",
    "predict",
    "validate",
    "write_report",
]

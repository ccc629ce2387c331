"""Export, explain, quantize and validate small models for images, sounds, time series and tables.

```
exported = kdedge_export.export(module, input_spec, labels, "model.onnx")
kdedge_export.quantize(exported.path, calibration_samples)
kdedge_export.add_saliency("theirs.onnx", "ours.onnx")
kdedge_export.add_familiarity("ours.onnx", samples)
```
"""

from typing import TYPE_CHECKING

from kdedge_runtime import __version__ as __version__  # also turns onnxruntime's telemetry off before any import of it
from kdedge_runtime.util.lazy_import import lazy_names

if TYPE_CHECKING:
    from kdedge_export.familiarity.file_familiarity import add_familiarity
    from kdedge_export.familiarity.fitting import FamiliaritySamples
    from kdedge_export.file_quantization import quantize
    from kdedge_export.onnx_import.import_model import add_saliency
    from kdedge_export.onnx_import.preprocessing import PixelInput
    from kdedge_export.validation.inputs import Models, ValidationSet
    from kdedge_export.validation.validator import validate, write_report
    from kdedge_export.verified_export import export, exportable

__all__ = [
    "FamiliaritySamples",
    "Models",
    "PixelInput",
    "ValidationSet",
    "add_familiarity",
    "add_saliency",
    "export",
    "exportable",
    "quantize",
    "validate",
    "write_report",
]

_HOMES = {
    "Models": "validation.inputs",
    "ValidationSet": "validation.inputs",
    "PixelInput": "onnx_import.preprocessing",
    "FamiliaritySamples": "familiarity.fitting",
    "add_familiarity": "familiarity.file_familiarity",
    "add_saliency": "onnx_import.import_model",
    "export": "verified_export",
    "exportable": "verified_export",
    "quantize": "file_quantization",
    "validate": "validation.validator",
    "write_report": "validation.validator",
}
# Loaded on first use: torch takes seconds to import.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

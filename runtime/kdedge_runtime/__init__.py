"""Run explained models for images, sounds, time series and tables on small devices, without torch or onnx.

```python
model = Model.load("model.onnx")
prediction = predict(model, image)
```
"""

import os
from typing import TYPE_CHECKING

from kdedge_runtime.util.lazy_import import lazy_names

if TYPE_CHECKING:
    from kdedge_runtime.errors import KdedgeError
    from kdedge_runtime.metadata import Metadata
    from kdedge_runtime.modalities.image import ImageInput
    from kdedge_runtime.model import Explanation, Model
    from kdedge_runtime.prediction import Prediction
    from kdedge_runtime.sample_prediction import predict, predict_file

__all__ = [
    "Explanation",
    "ImageInput",
    "KdedgeError",
    "Metadata",
    "Model",
    "Prediction",
    "predict",
    "predict_file",
]
__version__ = "0.1.0"

# onnxruntime 1.29 and later sends model names and a machine description to its vendor unless this variable is set
# before import (its pull request 27379). Disabling it after the import is too late. Subprocesses inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Explanation": "model",
    "ImageInput": "modalities.image",
    "KdedgeError": "errors",
    "Metadata": "metadata",
    "Model": "model",
    "Prediction": "prediction",
    "predict": "sample_prediction",
    "predict_file": "sample_prediction",
}
# Lazy import, so that `--help` does not load onnxruntime.
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

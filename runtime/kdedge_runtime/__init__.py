"""Run explained models on small machines, with numpy, onnxruntime and Pillow only.

```python
from kdedge_runtime import Model, fit

model = Model.load("model.onnx")
explanation = model.predict(fit(picture, model.metadata.input)[None])
```
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdedge_runtime.errors import KdedgeError
    from kdedge_runtime.metadata import Metadata
    from kdedge_runtime.model import Explanation, Model
    from kdedge_runtime.preprocess import fit

__all__ = ["Explanation", "KdedgeError", "Metadata", "Model", "fit"]
__version__ = "0.1.0"

# onnxruntime from 1.29 on sends the model's names and the machine's description to its maker unless this is set before
# its import (its pull request 27379); switching it off after the import comes too late. Subprocesses inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Explanation": "model",
    "KdedgeError": "errors",
    "Metadata": "metadata",
    "Model": "model",
    "fit": "preprocess",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that a command's --help does not wait for onnxruntime.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

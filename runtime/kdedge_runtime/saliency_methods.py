"""Registry of all saliency methods, with what command line, live view and gates need to know of them.

Nothing here computes a map. The definitions are in `kdedge_export.saliency.methods` (PyTorch graphs),
`kdedge_export.onnx_import.graph_methods` (graphs of `.onnx` files) and `kdedge_runtime.explainers` (perturbation).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["NO_MAP", "RECIPROCAM", "SALIENCY_METHODS", "Backend", "SaliencyMethod", "methods_of"]

Backend = Literal["torch", "onnx", "perturbation"]
"""Place of the computation: a graph exported from PyTorch, an existing `.onnx` graph, or repeated evaluations."""


@dataclass(frozen=True)
class SaliencyMethod:
    """Properties of a saliency method."""

    name: str
    """Name on the command line and in the metadata."""
    title: str
    """Name in the literature."""
    family: Literal["cam", "gradient", "attention", "propagation", "perturbation"]
    backends: frozenset[Backend]
    is_class_specific: bool = True
    """False if the map is the same for every class."""
    is_complete: bool = False
    """True if the map is exact contributions, which add up to the logit minus that of the reference."""


_BOTH: frozenset[Backend] = frozenset({"torch", "onnx"})
_TORCH: frozenset[Backend] = frozenset({"torch"})
_ONNX: frozenset[Backend] = frozenset({"onnx"})
_PERTURBATION: frozenset[Backend] = frozenset({"perturbation"})

SALIENCY_METHODS: Mapping[str, SaliencyMethod] = {
    method.name: method
    for method in (
        SaliencyMethod("cam", "CAM", "cam", _TORCH),
        SaliencyMethod("gradcam", "Grad-CAM", "cam", _BOTH),
        SaliencyMethod("gradcam++", "Grad-CAM++", "cam", _BOTH),
        SaliencyMethod("hirescam", "HiResCAM", "cam", _BOTH),
        SaliencyMethod("layercam", "LayerCAM", "cam", _BOTH),
        SaliencyMethod("xgradcam", "XGrad-CAM", "cam", _BOTH),
        SaliencyMethod("eigencam", "Eigen-CAM", "cam", _BOTH, is_class_specific=False),
        SaliencyMethod("input-gradient", "Input gradient", "gradient", _TORCH),
        SaliencyMethod("integrated-gradients", "Integrated gradients", "gradient", _TORCH),
        SaliencyMethod("smoothgrad", "SmoothGrad", "gradient", _TORCH),
        SaliencyMethod("attention-rollout", "Attention rollout", "attention", _TORCH, is_class_specific=False),
        SaliencyMethod("gradient-attention", "Gradient attention", "attention", _TORCH),
        SaliencyMethod("deeplift", "DeepLIFT", "propagation", _TORCH, is_complete=True),
        SaliencyMethod("reciprocam", "ReciproCAM", "cam", _ONNX),
        SaliencyMethod("occlusion", "Occlusion", "perturbation", _PERTURBATION),
        SaliencyMethod("rise", "RISE", "perturbation", _PERTURBATION),
        SaliencyMethod("lime", "LIME", "perturbation", _PERTURBATION),
        SaliencyMethod("shap", "KernelSHAP", "perturbation", _PERTURBATION),
        SaliencyMethod("scorecam", "Score-CAM", "perturbation", _PERTURBATION),
    )
}
"""Saliency methods by name."""
RECIPROCAM = "reciprocam"
"""Method of `.onnx` files whose operators have no derivative."""
NO_MAP = "none"
"""Method name of a model file without a map."""


def methods_of(backend: Backend) -> tuple[str, ...]:
    """Return the names of all methods of a backend, in the order of the registry."""
    return tuple(name for name, method in SALIENCY_METHODS.items() if backend in method.backends)

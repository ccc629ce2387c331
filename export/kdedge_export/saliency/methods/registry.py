"""Registry of all methods by name."""

from kdedge_export.saliency.methods.attention_rollout import attention_rollout
from kdedge_export.saliency.methods.cam import cam
from kdedge_export.saliency.methods.deeplift import deeplift, rescale
from kdedge_export.saliency.methods.eigencam import eigencam
from kdedge_export.saliency.methods.gradcam import gradcam
from kdedge_export.saliency.methods.gradcam_plus_plus import gradcam_plus_plus
from kdedge_export.saliency.methods.gradient_attention import gradient_attention
from kdedge_export.saliency.methods.hirescam import hirescam
from kdedge_export.saliency.methods.input_gradient import input_gradient, single_point
from kdedge_export.saliency.methods.integrated_gradients import STEPS, integrated_gradients, integration_path
from kdedge_export.saliency.methods.layercam import layercam
from kdedge_export.saliency.methods.method_types import (
    AttentionMethod,
    CAMMethod,
    GradientMethod,
    Method,
    PropagationMethod,
)
from kdedge_export.saliency.methods.smoothgrad import SAMPLES, noise_field, noisy_copies, smoothgrad
from kdedge_export.saliency.methods.xgradcam import xgradcam

__all__ = ["DEEPLIFT", "GRADIENT_ATTENTION", "HIRESCAM", "METHODS"]

HIRESCAM = CAMMethod("hirescam", hirescam)
GRADIENT_ATTENTION = AttentionMethod("gradient-attention", gradient_attention, by_gradients=True)
DEEPLIFT = PropagationMethod("deeplift", rescale, deeplift)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        CAMMethod("cam", cam, one_dense_layer=True),
        CAMMethod("gradcam", gradcam),
        CAMMethod("gradcam++", gradcam_plus_plus),
        HIRESCAM,
        CAMMethod("layercam", layercam),
        CAMMethod("xgradcam", xgradcam),
        CAMMethod("eigencam", eigencam),
        GradientMethod("input-gradient", single_point, input_gradient, 1),
        GradientMethod("integrated-gradients", integration_path, integrated_gradients, STEPS + 1),
        GradientMethod("smoothgrad", noisy_copies, smoothgrad, SAMPLES + 1, noise_field),
        AttentionMethod("attention-rollout", attention_rollout, by_gradients=False),
        GRADIENT_ATTENTION,
        DEEPLIFT,
    )
}
"""Methods by the name used for `--method`."""

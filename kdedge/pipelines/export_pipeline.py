"""Export of a run, or of a network with its weights, in one call."""

import os
from collections.abc import Sequence
from pathlib import Path

from kdedge.models.zero_shot import ZeroShot
from kdedge.pipelines.model_export import ExportResult, export_model
from kdedge_export.quantization import FidelityGoal
from kdedge_runtime.devices import load_profile
from kdedge_runtime.util.files import Location
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["export"]


def export(
    source: Location,
    *,
    output: Location | None = None,
    weights: Location | None = None,
    pretrained: bool | None = None,
    classes: Sequence[str] = (),
    prompts: Sequence[str] = (),
    method: str | None = None,
    target_layer: str | None = None,
    precisions: Sequence[str] = (),
    min_map_correlation: float | None = None,
    max_drop: float | None = None,
    data: Location | None = None,
    device: str = "generic",
    progress: ProgressCallback = no_progress,
) -> ExportResult:
    """Export a run, or a network with its weights, to a verified `.onnx` file with its saliency map.

    Args:
        source: run, run folder, or name of a network.
        output: fp32 file; None writes `model.onnx` into the run folder, or names the file after the network.
        weights: weights file of a named network; None takes its published weights.
        pretrained: True requires published weights of a named network, and False exports random ones.
        classes: class names of a zero-shot classifier such as `clip:ViT-B-32/laion2b_s34b_b79k`.
        prompts: its sentences with `{}` for the class; empty takes `a photo of a {}`.
        method: saliency method, a key of `kdedge_export.saliency.METHODS`, or `none`; None takes the head's default.
        target_layer: module path of the layer whose activations the map uses; None finds it.
        precisions: other precisions to write next to the fp32 file, such as `["int8"]`: keys of
            `kdedge_export.quantization.RECIPES`.
        min_map_correlation: minimum correlation of quantized maps with fp32 maps; layers stay in fp32 to reach it.
        max_drop: maximum loss of top-1 accuracy, in percentage points.
        data: samples for calibration and familiarity; None takes the run's.
        device: device profile that quantized files are optimized for.
        progress: called during long steps.

    Raises:
        HeadNotSupported: the model does not support this method.
        UsageError: the source, the weights or the calibration samples are unusable.
        KdedgeError: the exported graph does not match PyTorch.
    """
    return export_model(
        source,
        weights=None if weights is None else Path(weights),
        pretrained=pretrained,
        output=None if output is None else Path(output),
        zero_shot=ZeroShot.of(classes, prompts) if classes or prompts else None,
        method=method,
        target_layer=target_layer,
        precisions=precisions,
        goal=FidelityGoal(min_map_correlation, max_drop),
        data=None if data is None else os.fspath(data),
        profile=load_profile(device),
        progress=progress,
    )

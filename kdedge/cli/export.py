"""`kdedge export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


class Method(StrEnum):
    """What the graph gives besides the logits."""

    CAM = "cam"
    GRADCAM = "gradcam"
    GRADCAM_PLUS_PLUS = "gradcam++"
    HIRESCAM = "hirescam"
    LAYERCAM = "layercam"
    XGRADCAM = "xgradcam"
    EIGENCAM = "eigencam"
    INPUT_GRADIENT = "input-gradient"
    INTEGRATED_GRADIENTS = "integrated-gradients"
    SMOOTHGRAD = "smoothgrad"
    ATTENTION_ROLLOUT = "attention-rollout"
    GRADIENT_ATTENTION = "gradient-attention"
    NONE = "none"


def export(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Run folder, or a model's name such as torchvision:resnet18.")
    ],
    quantize: Annotated[bool, typer.Option("--quantize", help="Write an int8 file beside the fp32 one.")] = False,
    method: Annotated[Method, typer.Option(help="Saliency map, or none for the plain graph.")] = Method.GRADCAM,
    target_layer: Annotated[
        str | None,
        typer.Option(metavar="MODULE.PATH", help="Layer whose activations the map shows. [default: found by itself]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write. [default: model.onnx in the run]")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Trained weights of a model by name.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Pictures to calibrate int8 on. [default: the run's training side]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device profile that the int8 file is for. [default: generic]")
    ] = None,
) -> None:
    """Write one ONNX file whose forward pass gives the answer and the reason."""
    from kdedge.report.exporting import print_export
    from kdedge.report.progress import step_progress
    from kdedge.workflow.export_model import export_model
    from kdedge_runtime.devices import load_profile
    from kdedge_runtime.errors import UsageError

    for option, value in (("--data", data), ("--device", device)):
        if value is not None and not quantize:
            raise UsageError(f"{option} {value} says how to quantize. Add --quantize, or leave {option} out.")
    profile = load_profile(device or "generic")
    with step_progress() as progress:
        result = export_model(
            source,
            weights=weights,
            output=output,
            method=method.value,
            target_layer=target_layer,
            with_int8=quantize,
            data=data,
            profile=profile,
            progress=progress,
        )
    print_export(result, source, data)

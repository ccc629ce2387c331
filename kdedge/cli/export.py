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
    RECIPROCAM = "reciprocam"
    NONE = "none"


def export(
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="Run folder, or a model's name such as torchvision:resnet18."),
    ] = None,
    quantize: Annotated[bool, typer.Option("--quantize", help="Write an int8 file beside the fp32 one.")] = False,
    keep_heatmaps: Annotated[
        float | None,
        typer.Option(metavar="PEARSON", help="With --quantize: keep layers in float until maps correlate as much."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="With --quantize: keep layers in float until top-1 loses no more."),
    ] = None,
    qat: Annotated[
        bool,
        typer.Option("--qat", help="With --quantize: train a run's student on with int8's errors if it is not enough."),
    ] = False,
    method: Annotated[Method, typer.Option(help="Saliency map, or none for the plain graph.")] = Method.GRADCAM,
    target_layer: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            help="Module path (with --from-onnx: tensor) of what the map looks at. [default: found by itself]",
        ),
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
    from_onnx: Annotated[
        Path | None,
        typer.Option("--from-onnx", metavar="MODEL.onnx", help="In place of SOURCE: a classifier of any framework."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="With --from-onnx: class names, a line each or JSON.")] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="With --from-onnx: take uint8 pictures; R,G,B or one number, of pixels in [0, 1]."),
    ] = None,
    std: Annotated[str | None, typer.Option(help="With --mean; such as 0.229,0.224,0.225 or 1/255.")] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="With --mean: the model wants blue first.")] = False,
    size: Annotated[int | None, typer.Option(min=16, help="With --from-onnx: input side in px, if open.")] = None,
) -> None:
    """Write one ONNX file whose forward pass gives the answer and the reason."""
    from kdedge.cli.from_onnx import export_onnx
    from kdedge_runtime.errors import UsageError

    if from_onnx is not None:
        unusable = {
            "SOURCE": source,
            "--quantize": quantize or None,
            "--keep-heatmaps": keep_heatmaps,
            "--max-drop": max_drop,
            "--qat": qat or None,
            "--weights": weights,
            "--data": data,
            "--device": device,
        }
        for name, unused in unusable.items():
            if unused is not None:
                raise UsageError(f"--from-onnx {from_onnx} is all there is to export. Leave {name} out.")
        if method is Method.NONE:
            raise UsageError("--from-onnx adds a map, and --method none asks for none. Leave one of them out.")
        asked = None if method is Method.GRADCAM else method.value  # where that cannot be had, it is said
        export_onnx(from_onnx, output, asked, labels, target_layer, mean, std, bgr, size)
        return
    theirs = {"--labels": labels, "--mean": mean, "--std": std, "--bgr": bgr}
    for name, given in (theirs | {"--size": size}).items():
        if given:
            raise UsageError(f"{name} goes with --from-onnx MODEL.onnx. Leave it out.")
    if source is None:
        raise UsageError("There is nothing to export. Name a run folder or a model, or --from-onnx MODEL.onnx.")
    if source.endswith(".onnx"):
        raise UsageError(f"{source} is a model file. To add a map to it: kdedge export --from-onnx {source}")
    if method is Method.RECIPROCAM:
        raise UsageError("--method reciprocam goes with --from-onnx MODEL.onnx. Leave it out.")
    from kdedge.report.exporting import print_export, require_goal
    from kdedge.report.progress import step_progress
    from kdedge.workflow.export_model import export_model
    from kdedge_export.quantize import Goal
    from kdedge_runtime.devices import load_profile

    quantizing = {
        "--data": data,
        "--device": device,
        "--keep-heatmaps": keep_heatmaps,
        "--max-drop": max_drop,
        "--qat": qat or None,
    }
    for option, value in quantizing.items():
        if value is not None and not quantize:
            given = option if value is True else f"{option} {value}"
            raise UsageError(f"{given} says how to quantize. Add --quantize, or leave {option} out.")
    if keep_heatmaps is not None and method is Method.NONE:
        raise UsageError("--keep-heatmaps needs a map, and --method none exports none. Leave one of them out.")
    if keep_heatmaps is not None and not -1 <= keep_heatmaps < 1:
        raise UsageError(f"--keep-heatmaps is a correlation below 1, such as 0.98; got {keep_heatmaps:g}.")
    if max_drop is not None and max_drop < 0:
        raise UsageError(f"--max-drop is in percentage points, such as 0.5; got {max_drop:g}.")
    profile = load_profile(device or "generic")
    with step_progress() as progress:
        result = export_model(
            source,
            weights=weights,
            output=output,
            method=method.value,
            target_layer=target_layer,
            with_int8=quantize,
            goal=Goal(keep_heatmaps, max_drop),
            with_qat=qat,
            data=data,
            profile=profile,
            progress=progress,
        )
    print_export(result, source, data)
    require_goal(result)

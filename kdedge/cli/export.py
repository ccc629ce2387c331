"""`kdedge export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


class Method(StrEnum):
    """What the graph gives besides the logits."""

    GRADCAM = "gradcam"
    NONE = "none"


def export(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Run folder, or a model's name such as torchvision:resnet18.")
    ],
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
    from kdedge.report.exporting import print_export, require_goal
    from kdedge.report.progress import step_progress
    from kdedge.workflow.export_model import export_model
    from kdedge_export.quantize import Goal
    from kdedge_runtime.devices import load_profile
    from kdedge_runtime.errors import UsageError

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
            explained=method is Method.GRADCAM,
            with_int8=quantize,
            goal=Goal(keep_heatmaps, max_drop),
            with_qat=qat,
            data=data,
            profile=profile,
            progress=progress,
        )
    print_export(result, source, data)
    require_goal(result)

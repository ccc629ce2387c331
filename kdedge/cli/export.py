"""`kdedge export`: what can be typed. Its two ways, from a model and from a file, are `from_model` and `from_onnx`."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.options import TrustCode

__all__ = ["Method", "export"]


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


class Resize(StrEnum):
    """How pictures become the input's size."""

    CROP = "crop"
    SQUASH = "squash"
    LETTERBOX = "letterbox"


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
    method: Annotated[
        Method | None,
        typer.Option(
            help="Saliency map, or none for the plain graph. "
            "[default: hirescam; behind class tokens gradient-attention; with --from-onnx reciprocam where an operator "
            "has no derivative]"
        ),
    ] = None,
    target_layer: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            help="Module path (with --from-onnx: tensor or node) of what the map looks at. [default: found by itself]",
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
    resize: Annotated[
        Resize | None,
        typer.Option(help="With --from-onnx: cut the centre, stretch, or fit between black borders. [default: crop]"),
    ] = None,
    crop_fraction: Annotated[
        float | None, typer.Option(metavar="SHARE", help="With --resize crop: share of the shorter side. [default: 1]")
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --from-onnx: output to explain, of several.")
    ] = None,
    trust_code: TrustCode = None,
) -> None:
    """Write one ONNX file that gives the answer and the reason."""
    from kdedge.cli.from_model import ModelExport, export_model_file
    from kdedge.cli.from_onnx import OnnxExport, export_onnx_file
    from kdedge_runtime.errors import UsageError

    quantizing = {
        "--keep-heatmaps": keep_heatmaps,
        "--max-drop": max_drop,
        "--qat": qat,
        "--data": data,
        "--device": device,
    }
    of_files = {"--labels": labels, "--mean": mean, "--std": std, "--bgr": bgr, "--size": size, "--head": head} | {
        "--resize": resize,
        "--crop-fraction": crop_fraction,
    }
    for option, told in _given(quantizing).items():
        if not quantize:
            raise UsageError(f"{told} says how to quantize. Add --quantize, or leave {option} out.")
    if from_onnx is not None:
        not_of_files = {"SOURCE": source, "--weights": weights, "--qat": qat}
        for option in _given(not_of_files):
            raise UsageError(f"--from-onnx {from_onnx} is all there is to export. Leave {option} out.")
        asked = None if method is None else method.value
        export_onnx_file(
            OnnxExport(
                source=from_onnx,
                output=output,
                method=asked,
                target=target_layer,
                labels=labels,
                mean=mean,
                std=std,
                bgr=bgr,
                size=size,
                head=head,
                resize=None if resize is None else resize.value,
                crop_fraction=crop_fraction,
                quantize=quantize,
                keep_heatmaps=keep_heatmaps,
                max_drop=max_drop,
                data=data,
                device=device,
            )
        )
        return
    for option in _given(of_files):
        raise UsageError(f"{option} goes with --from-onnx MODEL.onnx. Leave it out.")
    if source is None:
        raise UsageError("There is nothing to export. Name a run folder or a model, or --from-onnx MODEL.onnx.")
    asked = None if method is None else method.value
    export_model_file(
        ModelExport(source, output, asked, target_layer, weights, quantize, keep_heatmaps, max_drop, qat, data, device)
    )


def _given(options: Mapping[str, object]) -> dict[str, str]:
    """The options that a user typed, each with how: `--max-drop` as `--max-drop 0.5`."""
    return {
        option: option if value is True else f"{option} {value}"
        for option, value in options.items()
        if value is not None and value is not False
    }

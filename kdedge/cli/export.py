"""The `kdedge export` command. Exports of models are in `from_model`, exports of ONNX files in `from_onnx`."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.options import Classes, Prompts, TrustCode
from kdedge_runtime.precision import FP32, PRECISIONS
from kdedge_runtime.saliency_methods import NO_MAP, RECIPROCAM, methods_of

__all__ = ["export"]

_METHODS = (*methods_of("torch"), RECIPROCAM, NO_MAP)
"""Saliency methods of exported graphs; `reciprocam` needs an ONNX file."""
_BLACK_BOX = methods_of("perturbation")
"""Methods that evaluate a file many times per sample, so they are not exported."""
_CONVERTED = tuple(name for name in PRECISIONS if name != FP32.name)
"""Precisions besides fp32, which is always written."""
_QUANTIZE = "int8"
"""Precision of --quantize."""


def _method(name: str) -> str:
    """Return a method name, or raise a usage error with the available ones."""
    if name not in _METHODS:
        hint = f" To explain a file by {name}: kdedge explain --method {name}." if name in _BLACK_BOX else ""
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(_METHODS)}.{hint}")
    return name


def _precision(name: str) -> str:
    """Return the name of a precision, or raise a usage error with the available ones."""
    if name not in _CONVERTED:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(_CONVERTED)}.")
    return name


class ResizeMode(StrEnum):
    """Rules for resizing images to the input size."""

    CROP = "crop"
    SQUASH = "squash"
    LETTERBOX = "letterbox"


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Run folder, model name such as torchvision:resnet18, or ONNX classifier of any framework.",
        ),
    ],
    precision: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRECISION",
            parser=_precision,
            help=f"Also write a file in this precision: {', '.join(_CONVERTED)}. May be repeated.",
        ),
    ] = None,
    quantize: Annotated[bool, typer.Option("--quantize", help=f"Same as --precision {_QUANTIZE}.")] = False,
    min_map_correlation: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Keep layers in fp32 until quantized maps have at least this Pearson correlation with the fp32 maps, "
            "-1 to 1 (needs --quantize).",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Keep layers in fp32 until quantization loses at most this many percentage points of top-1 (needs "
            "--quantize).",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            parser=_method,
            help=f"Saliency method: {', '.join(_METHODS)} (none exports logits only). [default: hirescam; "
            "gradient-attention for class-token models; deeplift for dense layers alone; reciprocam for ONNX files "
            "with non-differentiable operators]",
        ),
    ] = None,
    target_layer: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            help="Target layer of the map: a module path, or a tensor or node of an ONNX file. [default: found "
            "automatically]",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write. [default: model.onnx in the run folder; NAME.onnx for a model name; "
            "MODEL.explained.onnx for an ONNX file]",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights file of a model given by name. [default: published weights]")
    ] = None,
    pretrained: Annotated[
        bool | None,
        typer.Option(
            "--pretrained/--no-pretrained",
            help="Export the published weights of a model given by name, or random ones for benchmarks. [default: "
            "published]",
        ),
    ] = None,
    classes: Classes = None,
    prompt: Prompts = None,
    data: Annotated[
        str | None,
        typer.Option(help="Samples to calibrate on, and for the familiarity threshold. [default: the run's]"),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device profile to quantize for (needs --quantize). [default: generic]"),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Class names, one per line or as JSON (needs an ONNX file).")
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Channel mean for pixels in [0, 1], as R,G,B or one number; the exported file takes uint8 images "
            "(needs an ONNX file)."
        ),
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Channel standard deviation, such as 0.229,0.224,0.225 or 1/255 (needs --mean).")
    ] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="The model expects BGR channel order (needs --mean).")] = False,
    size: Annotated[
        int | None,
        typer.Option(min=16, help="Input size in pixels, if the ONNX input is dynamic (needs an ONNX file)."),
    ] = None,
    resize: Annotated[
        ResizeMode | None,
        typer.Option(
            help="Resizing rule: center crop, stretch, or black borders (needs an ONNX file). [default: crop]"
        ),
    ] = None,
    crop_fraction: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Fraction of the shorter image side kept by --resize crop, above 0 and at most 1 (needs an ONNX "
            "file). [default: 1]",
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Output to explain, if the ONNX file has several (needs an ONNX file)."),
    ] = None,
    trust_code: TrustCode = None,
) -> None:
    """Export a model to ONNX with a saliency map. The file computes logits and map in one pass.

    Exits with 4 if --min-map-correlation or --max-drop cannot be met.
    """
    from kdedge.cli.from_model import ModelExport, export_model_file
    from kdedge.cli.from_onnx import OnnxExport, export_onnx_file
    from kdedge_runtime.errors import UsageError
    from kdedge_runtime.model import is_bundle
    from kdedge_runtime.precision import precision_named

    precisions = tuple(dict.fromkeys([*(precision or ()), *([_QUANTIZE] if quantize else ())]))
    quantizing = {"--min-map-correlation": min_map_correlation, "--max-drop": max_drop, "--device": device}
    of_files = {"--labels": labels, "--mean": mean, "--std": std, "--bgr": bgr, "--size": size, "--head": head} | {
        "--resize": resize,
        "--crop-fraction": crop_fraction,
    }
    for option, setting in _given(quantizing).items():
        if not any(precision_named(name).is_calibrated for name in precisions):
            raise UsageError(f"{setting} needs --quantize. Add --quantize, or remove {option}.")
    if Path(source).suffix.lower() == ".onnx" or is_bundle(Path(source)):
        not_of_files = {"--weights": weights, "--pretrained": pretrained is True} | {
            "--no-pretrained": pretrained is False,
            "--classes": classes,
            "--prompt": prompt,
        }
        for option in _given(not_of_files):
            raise UsageError(f"{option} applies to runs and PyTorch models, not to ONNX files. Remove {option}.")
        export_onnx_file(
            OnnxExport(
                source=Path(source),
                output=output,
                method=method,
                target=target_layer,
                labels=labels,
                mean=mean,
                std=std,
                bgr=bgr,
                size=size,
                head=head,
                resize=None if resize is None else resize.value,
                crop_fraction=crop_fraction,
                precisions=precisions,
                min_map_correlation=min_map_correlation,
                max_drop=max_drop,
                data=data,
                device=device,
            )
        )
        return
    for option in _given(of_files):
        raise UsageError(f"{option} needs an ONNX file, but {source} is not one. Remove {option}.")
    export_model_file(
        ModelExport(
            source,
            output,
            method,
            target_layer,
            weights,
            pretrained,
            () if classes is None else tuple(classes.split(",")),
            tuple(prompt or ()),
            precisions,
            min_map_correlation,
            max_drop,
            data,
            device,
        )
    )


def _given(options: Mapping[str, object]) -> dict[str, str]:
    """Return the options that were set, each with its text on the command line, such as `--max-drop 0.5`."""
    return {
        option: option if value is True else f"{option} {value}"
        for option, value in options.items()
        if value is not None and value is not False
    }

"""The `kdedge validate` command."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.options import TrustCode

__all__ = ["validate"]


def validate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Run folder with exported files, or a model file.")],
    data: Annotated[
        str | None, typer.Option(help="Images to validate on. [default: the run's validation split]")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Object annotations: a CSV table with the columns file, x1, y1, x2, y2 in pixels, or a folder of "
            "masks. [default: boxes.csv in the data folder]"
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights the model file was exported from. [default: searched next to the model file and in "
            "the current directory]"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Function that builds the model, if the file was exported from a Python file.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device profile with the latency and memory budgets to check. [default: the profile the "
            "files were quantized for]"
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the faithfulness and robustness checks.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder of the report. [default: report/ in the run folder, or MODEL.report/ next to the file]"
        ),
    ] = None,
    trust_code: TrustCode = None,
) -> None:
    """Check that accuracy and saliency maps were kept through export. Exits with 4 unless every bound is shown to hold.

    A file from `kdedge export --from-onnx` has no PyTorch reference. It is validated alone, and its other precisions
    against it.
    """
    from kdedge.data.readers.reader_choice import check_data_source
    from kdedge.models.artifacts import Artifacts
    from kdedge.models.model_source import check_weights
    from kdedge_runtime.devices import load_profile

    # Checked before torch is imported, which takes seconds.
    artifacts = Artifacts.open(source)
    artifacts.fp32_file()
    if data is not None:
        check_data_source(data)
    if weights is not None:
        check_weights(weights)
    if device is not None:
        load_profile(device)
    import kdedge
    from kdedge.cli.progress_bar import step_progress
    from kdedge.cli.validation_summary import print_validation

    with step_progress() as progress:
        validation = kdedge.validate(
            artifacts,
            data=data,
            boxes=boxes,
            weights=weights,
            model=model,
            device=device,
            quick=quick,
            output=out,
            progress=progress,
        )
    print_validation(validation)
    validation.require_passed()

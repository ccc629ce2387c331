"""`kdedge validate`."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.options import TrustCode

__all__ = ["validate"]


def validate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Run folder with exported files, or a model file.")],
    data: Annotated[str | None, typer.Option(help="Pictures. [default: the run's validation side]")] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Where objects are: a table file,x1,y1,x2,y2 or a folder of masks. [default: boxes.csv in the data]"
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights that a file of a model by name was exported from. [default: by name, beside it or here]"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="Network of a model file exported from a Python file."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Ask for the budgets of this device profile. [default: the one that int8 was made for]"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out faithfulness and robustness.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the report. [default: report/ in the run]")] = None,
    trust_code: TrustCode = None,
) -> None:
    """Prove that neither answers nor maps were lost on the way. Ends with 4 unless every bound is shown to be kept.

    A file by `kdedge export --from-onnx` is judged by itself, and the int8 file beside it against it.
    """
    from kdedge.data.readers.reader_choice import require_data
    from kdedge.models.model_source import require_weights
    from kdedge.pipelines.model_files import fp32_file
    from kdedge_runtime.devices import load_profile

    # Before torch is imported, which takes seconds.
    fp32_file(source)
    if data is not None:
        require_data(data)
    if weights is not None:
        require_weights(weights)
    profile = None if device is None else load_profile(device)
    from kdedge.cli.progress_bar import step_progress
    from kdedge.cli.validation_summary import print_validation
    from kdedge.pipelines.model_validation import validate_model

    with step_progress() as progress:
        validation = validate_model(
            source,
            data=data,
            boxes=boxes,
            weights=weights,
            model=model,
            profile=profile,
            quick=quick,
            out=out,
            progress=progress,
        )
    print_validation(validation)
    validation.require_passed()

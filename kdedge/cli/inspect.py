"""`kdedge inspect`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["inspect"]


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An .onnx file, by kdedge or not, or a run folder.")],
    image: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="A picture to follow through it.")] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain, by name or number. [default: the top class]")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Page to write.")] = Path("inspect.html"),
) -> None:
    """Show a model's layers, their cost, and how it decides."""
    from kdedge.cli.layer_table import print_inspected
    from kdedge.cli.progress_bar import step_progress
    from kdedge.pipelines.model_inspection import inspect_model
    from kdedge.reports.pages.inspection_page import write_inspection
    from kdedge_runtime.errors import UsageError

    if output.suffix != ".html":
        raise UsageError(f"The page must end in .html, got {output}.")
    with step_progress() as progress:
        inspected = inspect_model(model, image, class_name=class_name, progress=progress)
    write_inspection(inspected, output)
    print_inspected(inspected, output)

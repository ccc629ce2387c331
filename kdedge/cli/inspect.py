"""The `kdedge inspect` command."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["inspect"]


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ONNX file (from kdedge or elsewhere) or run folder.")],
    image: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="Image to trace through the model.")] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain, by name or index. [default: the top class]")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML page to write.")] = Path("inspect.html"),
) -> None:
    """Show a model's layers, their cost and attribution."""
    from kdedge.cli.layer_table import print_inspected
    from kdedge.cli.progress_bar import step_progress
    from kdedge.pipelines.model_inspection import inspect_model
    from kdedge.reports.inspection_page import write_inspection
    from kdedge_runtime.errors import UsageError

    if output.suffix != ".html":
        raise UsageError(f"The output page must end in .html; got {output}.")
    with step_progress() as progress:
        inspected = inspect_model(model, image, class_name=class_name, progress=progress)
    write_inspection(inspected, output)
    print_inspected(inspected, output)

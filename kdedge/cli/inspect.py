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
    """Show a model's layers, their cost, and their contribution to a prediction."""
    from kdedge.report.inspecting import print_inspected
    from kdedge.report.page.inspection import write_inspection
    from kdedge.report.progress import step_progress
    from kdedge.workflow.inspect_model import inspect_model
    from kdedge_runtime.errors import UsageError

    if output.suffix != ".html":
        raise UsageError(f"The output page must end in .html; got {output}.")
    with step_progress() as progress:
        inspected = inspect_model(model, image, class_name=class_name, progress=progress)
    write_inspection(inspected, output)
    print_inspected(inspected, output)

"""`kdedge explain`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["explain"]


def explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file written by kdedge export.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Pictures to explain.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the overlays.")] = Path("explained"),
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain, by name or number. [default: the top class]")
    ] = None,
) -> None:
    """Draw where a model looks in pictures."""
    from kdedge_runtime import Model
    from kdedge_runtime.explain import explain as explain_pictures

    loaded = Model.load(model)
    for explained in explain_pictures(loaded, images, output, class_name=class_name):
        answer = explained.answer
        typer.echo(f"{explained.written}  {answer.label} {100 * answer.probability:.1f} %")

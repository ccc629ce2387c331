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
    method: Annotated[
        str | None,
        typer.Option(
            help="Ask the model again and again with parts hidden: occlusion, rise, lime, shap or scorecam. "
            "[default: the map in the file]"
        ),
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Time a picture for such a method. [default: as many evaluations as it needs]")
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(help="Superpixels of lime and shap; shap is exact up to 10. [default: 40]"),
    ] = None,
) -> None:
    """Draw where a model looks in pictures."""
    from kdedge.report.progress import step_progress
    from kdedge_runtime import Model
    from kdedge_runtime.blackbox import make_explainer
    from kdedge_runtime.errors import UsageError
    from kdedge_runtime.explain import explain as explain_pictures

    for option, value in (("--budget-ms", budget_ms), ("--parts", parts)):
        if value is not None and method is None:
            raise UsageError(f"{option} {value:g} is for a --method. Name one, or leave {option} out.")
    loaded = Model.load(model)
    explainer = None if method is None else make_explainer(loaded, method, budget_ms=budget_ms, parts=parts)
    with step_progress() as progress:
        done = explain_pictures(
            loaded,
            images,
            output,
            class_name=class_name,
            explainer=explainer,
            progress=None if explainer is None else progress,
        )
    for explained in done:
        answer, estimate = explained.answer, explained.estimate
        account = "" if estimate is None else f"  {estimate.evaluations:,} evaluations, {estimate.elapsed_ms:,.0f} ms"
        typer.echo(f"{explained.written}  {answer.label} {100 * answer.probability:.1f} %{account}")

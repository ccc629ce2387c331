"""The `kdedge explain` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdedge_runtime.saliency_methods import methods_of

if TYPE_CHECKING:
    from kdedge_runtime.explainers.sample_files import ExplainedSample

__all__ = ["explain"]


def explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file written by kdedge export, or bundle.")],
    samples: Annotated[
        list[Path],
        typer.Argument(metavar="SAMPLE", help="Images, or other files that the model takes; or folders of them."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output folder for the overlays.")] = Path("explained"),
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain, by name or index. [default: the top class]")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"Black-box explanation method: {', '.join(methods_of('perturbation'))}. [default: the map "
            "computed by the model file]"
        ),
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Time budget per sample in ms, above 0 (needs --method). [default: no limit]")
    ] = None,
    segments: Annotated[
        int | None,
        typer.Option(help="Number of segments for lime and shap, 2 to 200; shap is exact up to 10. [default: 40]"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of samples to explain, the first ones. [default: all]")
    ] = None,
    page: Annotated[
        bool | None,
        typer.Option(
            "--page/--no-page",
            help="Also write a page, an SVG and a PNG with the contribution of each stage. [default: for a "
            "single image without --method]",
        ),
    ] = None,
) -> None:
    """Draw the saliency maps of images or other samples."""
    from kdedge_runtime.errors import UsageError

    for option, value in (("--budget-ms", budget_ms), ("--segments", segments)):
        if value is not None and method is None:
            raise UsageError(f"{option} {value:g} needs --method. Add --method, or remove {option}.")
    import kdedge
    from kdedge.cli.progress_bar import step_progress
    from kdedge_export.modalities import modality_of

    if page:
        _require_layer_attribution(model)
    with step_progress() as progress:
        done = kdedge.explain(
            model,
            samples,
            output,
            class_name=class_name,
            method=method,
            budget_ms=budget_ms,
            segments=segments,
            limit=limit,
            progress=progress,
        )
    for explained in done:
        _print_prediction(explained, budget_ms)
    drawn = [(explained.file, explained.written) for explained in done]
    has_page = len(drawn) == 1 and method is None and modality_of(done[0].prediction.input).has_layer_attribution
    if page or (page is None and has_page):
        _write_pages(model, drawn, class_name, is_wanted=bool(page))


def _require_layer_attribution(source: Path) -> None:
    """Raise before any work if the page of a model cannot be drawn."""
    from kdedge_export.modalities import modality_of
    from kdedge_runtime import Model
    from kdedge_runtime.errors import UsageError
    from kdedge_runtime.model_source import open_model

    with open_model(source, Model.load) as model:
        spec = model.metadata.input
    if not modality_of(spec).has_layer_attribution:
        raise UsageError(f"--page needs a model of images, but {source} takes {spec.kind} samples. Remove --page.")


def _print_prediction(explained: "ExplainedSample", budget_ms: float | None) -> None:
    from kdedge_runtime.tasks import TASKS
    from kdedge_runtime.util.printable import printable

    prediction, estimate = explained.prediction, explained.estimate
    account = "" if estimate is None else f"  {estimate.evaluations:,} evaluations, {estimate.elapsed_ms:,.0f} ms"
    if estimate is not None and budget_ms is not None and estimate.elapsed_ms > 1.1 * budget_ms:
        account += f" (over the budget of {budget_ms:g} ms: a map needs at least these evaluations)"
    score = TASKS[prediction.task].format_score(prediction.score, 1)
    other = "" if prediction.explained == prediction.label else f"  map of {prediction.explained}"
    typer.echo(printable(f"{explained.written}  {prediction.label} {score}{other}{account}"))


def _write_pages(source: Path, drawn: list[tuple[Path, Path]], class_name: str | None, *, is_wanted: bool) -> None:
    from kdedge.cli.progress_bar import step_progress
    from kdedge.reports.decision_files import write_decisions
    from kdedge_runtime import Model
    from kdedge_runtime.errors import UsageError
    from kdedge_runtime.model_source import open_model
    from kdedge_runtime.util.printable import printable

    try:
        with open_model(source, Model.load) as model, step_progress() as progress:
            written = list(write_decisions(model, drawn, class_name=class_name, progress=progress))
    except UsageError as error:
        if is_wanted:
            raise
        typer.echo(printable(f"no page written: {error}"), err=True)
        return
    for path in written:
        typer.echo(path)

"""`kdedge validate`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["validate"]


def validate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Run folder with exported files, or a model file.")],
    data: Annotated[str | None, typer.Option(help="Pictures. [default: the run's validation side]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the report. [default: report/ in the run]")] = None,
) -> None:
    """Prove that neither the answer nor the reason was lost on the way; exit 4 when a gate fails."""
    from kdedge.report.progress import step_progress
    from kdedge.report.validation import print_validation
    from kdedge.workflow.validate_model import validate_model

    with step_progress() as progress:
        validation = validate_model(source, data=data, out=out, progress=progress)
    print_validation(validation)
    validation.require_passed()

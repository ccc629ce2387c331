"""`kdedge bundle`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bundle"]


def bundle(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Run folder with exported files, or one model file.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help=".zip or folder to write. [default: bundle.zip in the run]")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign with this Ed25519 key (PEM), which devices can require.")
    ] = None,
    version: Annotated[
        int,
        typer.Option(
            min=1,
            help="Signed version; a device that requires signatures refuses lower ones than it has run.",
        ),
    ] = 1,
    device: Annotated[str | None, typer.Option(help="Device profile that the bundle is for. [default: any]")] = None,
) -> None:
    """Pack the models for a device, with checksums and a signature."""
    from kdedge.cli.bundle_summary import print_bundle
    from kdedge.pipelines.bundle_writer import write_bundle

    print_bundle(write_bundle(source, output, sign, version=version, device=device))

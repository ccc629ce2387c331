"""The `kdedge bundle` command."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bundle"]


def bundle(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Run folder with exported files, or one model file.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Output .zip file. [default: bundle.zip next to the models]"),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY", help="Sign with this Ed25519 private key (PEM); devices can require the signature."
        ),
    ] = None,
    version: Annotated[
        int,
        typer.Option(
            min=1,
            help="Version number to sign. A device that requires signatures rejects versions lower than one it "
            "has run.",
        ),
    ] = 1,
    device: Annotated[str | None, typer.Option(help="Device profile of the target device. [default: any]")] = None,
) -> None:
    """Bundle model files for a device, with checksums. The bundle can be signed."""
    from kdedge.cli.bundle_summary import print_bundle
    from kdedge.pipelines.bundle_writer import write_bundle

    print_bundle(write_bundle(source, output, sign, version=version, device=device))

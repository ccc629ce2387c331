"""The `kdedge bundle` command."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdedge.pipelines.bundle_writer import BundleSummary

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
    from kdedge.pipelines.bundle_writer import write_bundle

    _print_bundle(write_bundle(source, output, sign, version=version, device=device))


def _print_bundle(packed: "BundleSummary") -> None:
    """Print the bundle path, its contents, and the command to run it."""
    from kdedge.cli.console import stderr_console

    console = stderr_console()
    signed = "not signed" if packed.public_key is None else f"signed, public key {packed.public_key}"
    place = ", replacing an earlier bundle" if packed.replaced else ""
    console.print(f"{packed.path}  {', '.join(packed.models)}; {signed}{place}", soft_wrap=True)
    required = [] if packed.public_key is None else ["--require-signature", packed.public_key]
    command = shlex.join(["kdedge-run", str(packed.path), *required])
    console.print(f"\nNext, on the device: {command} --source {packed.example_source} --view 8080", soft_wrap=True)

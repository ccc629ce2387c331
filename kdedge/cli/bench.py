"""`kdedge bench`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bench"]


def bench(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Model file (with the fp32 or int8 file beside it) or bundle."),
    ],
    device: Annotated[str, typer.Option(help="Device profile to set up for; auto is this machine.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="For one inference. [default: the profile's]")] = None,
    provider: Annotated[str | None, typer.Option(help="onnxruntime's provider. [default: the profile's]")] = None,
    require_signature: Annotated[
        str | None,
        typer.Option(metavar="PUBLICKEY", help="Measure a bundle that this Ed25519 key has signed, and nothing else."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a model on this machine. With and without its map, fp32 against int8, layer by layer."""
    from kdedge_runtime.cli.model_commands import Trial, print_bench

    print_bench(
        Trial(model, device=device, threads=threads, provider=provider, signer=require_signature, as_json=as_json)
    )

"""The `kdedge bench` command."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bench"]


def bench(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Model file (with its other precisions in the same folder) or bundle."),
    ],
    device: Annotated[str, typer.Option(help="Device profile to use; auto detects this machine.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of threads per inference. [default: from the profile]")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="onnxruntime execution provider. [default: from the profile]")
    ] = None,
    require_signature: Annotated[
        str | None,
        typer.Option(metavar="PUBLICKEY", help="Accept only a bundle signed by this Ed25519 key."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Benchmark a model on this machine. Compares with and without map, precisions, and single layers."""
    from kdedge_runtime.cli.bench import print_bench
    from kdedge_runtime.cli.model_options import ModelOptions

    options = ModelOptions(
        model, device=device, threads=threads, provider=provider, signer=require_signature, as_json=as_json
    )
    print_bench(options)

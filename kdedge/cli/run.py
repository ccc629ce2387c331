"""The `kdedge run` command, which wraps the runtime's runner."""

from collections.abc import Sequence
from importlib.resources import files

import typer

__all__ = ["run"]

_HELP = {"-h", "--help"}


def run(context: typer.Context) -> None:
    """Run or test a model on a camera, a video or images. Without a model file: a shipped ImageNet model."""
    from kdedge_runtime.cli.main import main

    raise typer.Exit(main(_with_model(context.args), prog="kdedge run"))


def _with_model(arguments: Sequence[str]) -> list[str]:
    """Insert the shipped model if options come without a model file."""
    if not arguments or not arguments[0].startswith("-") or _HELP.intersection(arguments):
        return list(arguments)
    shipped = files("kdedge.models") / "shipped" / "efficientnet_lite0.int8.onnx"
    return [str(shipped), *arguments]

"""The `kdedge run` command, which wraps the runtime's runner."""

from importlib.resources import files
from pathlib import Path

import typer

__all__ = ["run"]


def run(context: typer.Context) -> None:
    """Run a model on a camera or another source, or test it. Without a model file: a shipped ImageNet model."""
    from kdedge_runtime.cli.main import main

    shipped = files("kdedge.models") / "shipped" / "efficientnet_lite0.int8.onnx"
    raise typer.Exit(main(context.args, prog="kdedge run", default_model=Path(str(shipped))))

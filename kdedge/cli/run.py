"""The `kdedge run` command, which wraps the runtime's runner."""

import typer

__all__ = ["run"]


def run(context: typer.Context) -> None:
    """Run a model file on a camera, a video or images, or test it on this machine."""
    from kdedge_runtime.cli.main import main

    raise typer.Exit(main(context.args, prog="kdedge run"))

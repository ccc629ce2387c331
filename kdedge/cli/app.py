"""The `kdedge` command."""

import sys
from typing import Annotated

import typer

from kdedge.cli.bench import bench
from kdedge.cli.bundle import bundle
from kdedge.cli.compare import compare
from kdedge.cli.demo import demo
from kdedge.cli.devices import devices
from kdedge.cli.distill import distill
from kdedge.cli.doctor import doctor
from kdedge.cli.explain import explain
from kdedge.cli.export import export
from kdedge.cli.feedback import feedback
from kdedge.cli.freed_memory import keep_freed_memory
from kdedge.cli.inspect import inspect
from kdedge.cli.run import run
from kdedge.cli.train import train
from kdedge.cli.validate import validate
from kdedge.cli.web import web
from kdedge.models.code_trust import allow_typed
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.util.printable import printable, printable_lines

__all__ = ["app", "main"]

INTERRUPTED = 130
"""Exit code after Ctrl-C (128 + SIGINT), as in a shell."""

app = typer.Typer(
    help="Distill a small model that matches its teacher's saliency maps, and export both in one ONNX file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
MAKING = (demo, train, distill, export, validate)
for making in MAKING:
    app.command()(making)
# The runtime parses its own options, also on the device. They are passed through unchanged.
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run)
for using in (explain, inspect, compare, bundle, web, bench, doctor, devices):
    app.command()(using)
app.add_typer(feedback, name="feedback")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if context.invoked_subcommand in {each.__name__ for each in MAKING}:
        keep_freed_memory()
    if version:
        from kdedge import __version__

        typer.echo(f"kdedge {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line. Expected errors end with a message on stderr and their exit code."""
    for argument in sys.argv[1:]:
        allow_typed(argument.partition("=")[2] if argument.startswith("--") else argument)
    try:
        app(prog_name="kdedge")
    except KdedgeError as error:
        typer.echo(f"error: {printable_lines(str(error))}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # e.g. a full disk or a folder owned by another user
        what = error.filename or "A file"
        typer.echo(f"error: {printable(str(what))} cannot be read or written: {error.strerror or error}.", err=True)
        sys.exit(KdedgeError.exit_code)
    except SystemExit as done:
        if done.code == INTERRUPTED:  # Typer turns Ctrl-C into this exit code without printing anything
            typer.echo("interrupted", err=True)
        raise

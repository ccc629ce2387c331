"""The `kdedge demo` command."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for all files the demo writes.")] = Path("runs/demo"),
) -> None:
    """Run the whole pipeline on rendered images. No download, 3 to 11 minutes of CPU time."""
    from kdedge.cli.console import stderr_console
    from kdedge.cli.demo_summary import print_demo
    from kdedge.cli.training_screen import Screen
    from kdedge.demo.demo_run import run_demo

    console = stderr_console()
    with Screen(console) as screen:
        result = run_demo(out, screen, lambda heading: console.print(f"\n{heading}", style="bold"))
    print_demo(console, result)
    result.validation.require_passed()

"""`kdedge devices`: the device profiles, one of them, or the machine at hand."""

from typing import Annotated

import typer

__all__ = ["devices"]

devices = typer.Typer(help="List device profiles, print one, or detect this machine's.", rich_markup_mode=None)


@devices.callback(invoke_without_command=True)
def _all(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        from kdedge_runtime.cli.machine_commands import print_devices

        print_devices("all")


@devices.command()
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="A profile, such as raspberry-pi-5.")]) -> None:
    """Print a profile with the reason and the source of each value."""
    import sys

    from kdedge_runtime.devices import profile_text

    sys.stdout.write(profile_text(name))


@devices.command()
def detect() -> None:
    """Print which machine this is and the profile that fits it."""
    from kdedge_runtime.cli.machine_commands import print_devices

    print_devices("detect")

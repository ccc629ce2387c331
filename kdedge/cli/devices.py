"""The `kdedge devices` command: list the device profiles, print one, or detect this machine's."""

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
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a profile, such as raspberry-pi-5.")],
) -> None:
    """Print a profile with the rationale and source of each value."""
    import sys

    from kdedge_runtime.devices import profile_text

    sys.stdout.write(profile_text(name))


@devices.command()
def detect() -> None:
    """Print the detected machine and the profile that fits it."""
    from kdedge_runtime.cli.machine_commands import print_devices

    print_devices("detect")

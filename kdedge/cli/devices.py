"""The `kdedge devices` command."""

from typing import Annotated

import typer

__all__ = ["devices"]


def devices(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Profile to print, with the source of each value; detect prints this machine and its profile. "
            "[default: list all]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List device profiles, print one, or detect this machine's."""
    from kdedge_runtime.cli.devices import print_devices

    print_devices(name)

"""Command line interface, one module per command: parse options, call the library, print results."""

from kdedge.cli.app import main

__all__ = ["main"]

"""The command line: one file a verb. Each parses, calls the library, and prints."""

from kdedge.cli.app import main

__all__ = ["main"]

"""Where words for people go: stderr, as wide as the terminal or, in a log, wide enough for a table."""

import sys

from rich.console import Console

__all__ = ["stderr_console"]

_LOG_COLUMNS = 120


def stderr_console() -> Console:
    """A console on stderr that does not colour numbers."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _LOG_COLUMNS)

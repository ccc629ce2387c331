"""Consoles on stderr: as wide as the terminal, or wide enough for a table in a log file."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from kdedge_runtime.util.printable import printable_lines

__all__ = ["BUSY", "PrintableConsole", "flagged", "stderr_console"]

BUSY = "other programs were using this machine: the times above are approximate, repeat the measurement when it is idle"
"""Note on times measured on a busy machine."""
_LOG_COLUMNS = 120


class PrintableConsole(Console):
    """Console that escapes control characters in untrusted text, also in table cells."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """Render text with its control characters escaped."""
        return super().render_str(printable_lines(text), **settings)


def stderr_console(*, quiet: bool = False) -> Console:
    """Return a console on stderr without markup, so that brackets in file names are printed literally."""
    width = None if sys.stderr.isatty() else _LOG_COLUMNS
    return PrintableConsole(stderr=True, highlight=False, markup=False, emoji=False, width=width, quiet=quiet)


def flagged(word: str, text: str) -> Text:
    """Format `word: text` with the word in yellow."""
    return Text.assemble((word, "yellow"), f": {printable_lines(text)}")

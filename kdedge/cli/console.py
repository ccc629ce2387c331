"""Where words for people go: stderr, as wide as the terminal or, in a log, wide enough for a table."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from kdedge_runtime.util.printable import printable_lines

__all__ = ["BUSY", "PrintableConsole", "flagged", "stderr_console"]

BUSY = "other programs kept the machine busy meanwhile: the times above are rough, measure again when it is idle"
"""Note on times that other programs disturbed."""
_LOG_COLUMNS = 120


class PrintableConsole(Console):
    """A console on which strangers' texts, in the cells of tables too, cannot steer the terminal."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """Render a text with its control characters escaped."""
        return super().render_str(printable_lines(text), **settings)


def stderr_console(*, quiet: bool = False) -> Console:
    """A console on stderr that prints words as they are: brackets in a file's name are no markup."""
    width = None if sys.stderr.isatty() else _LOG_COLUMNS
    return PrintableConsole(stderr=True, highlight=False, markup=False, emoji=False, width=width, quiet=quiet)


def flagged(word: str, text: str) -> Text:
    """`word: text`, the word in yellow."""
    return Text.assemble((word, "yellow"), f": {printable_lines(text)}")

"""The frame of every page: its head, its style sheet, and what it may not load."""

from importlib.resources import files
from string import Template

from kdedge_export.html.text import escape

__all__ = ["shell"]


def shell(title: str, body: str, style: str = "") -> str:
    """A whole page as HTML that runs no script and loads nothing from anywhere.

    Args:
        title: of the browser's tab, as plain text.
        body: HTML; its classes are those of `page.css`, which follows the reader's choice of light or dark.
        style: CSS of this page alone, read after the shared sheet.
    """
    folder = files("kdedge_export.html")
    return Template(folder.joinpath("shell.html.tmpl").read_text("utf-8")).substitute(
        title=escape(title), style=folder.joinpath("page.css").read_text("utf-8") + style, body=body
    )

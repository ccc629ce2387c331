"""Frame of every page: head, style sheet and content security policy."""

from importlib.resources import files
from string import Template

from kdedge_export.html.text import escape

__all__ = ["shell"]


def shell(title: str, body: str, style: str = "") -> str:
    """Render a complete HTML page that runs no script and loads nothing.

    Args:
        title: title of the browser tab, as plain text.
        body: HTML that uses the classes of `page.css`, which supports light and dark mode.
        style: additional CSS of this page.
    """
    folder = files("kdedge_export.html")
    return Template(folder.joinpath("shell.html.tmpl").read_text("utf-8")).substitute(
        title=escape(title), style=folder.joinpath("page.css").read_text("utf-8") + style, body=body
    )

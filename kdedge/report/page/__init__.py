"""The comparison of runs as one self-contained page."""

from kdedge.report.page.document import render_page, write_page

__all__ = ["render_page", "write_page"]

"""The report as one self-contained page for people."""

from kdedge_export.validate.page.document import render_page, write_page

__all__ = ["render_page", "write_page"]

"""Validation report as one self-contained HTML page."""

from kdedge_export.validate.page.document import render_page, write_page

__all__ = ["render_page", "write_page"]

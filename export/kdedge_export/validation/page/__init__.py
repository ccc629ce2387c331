"""Validation report as one self-contained HTML page."""

from kdedge_export.validation.page.report_page import render_page, write_page

__all__ = ["render_page", "write_page"]

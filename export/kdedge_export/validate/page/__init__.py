"""The report as one self-contained page for people."""

from kdedge_export.validate.page.report_page import render_page, write_page

__all__ = ["render_page", "write_page"]

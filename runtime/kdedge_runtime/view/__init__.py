"""The run in a browser: a small web server with the live overlay and the figures."""

from kdedge_runtime.view.address import Address
from kdedge_runtime.view.server import LiveView

__all__ = ["Address", "LiveView"]

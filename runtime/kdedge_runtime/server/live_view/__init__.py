"""The run in a browser: a small web server with the live overlay and the figures, which can be talked back to."""

from kdedge_runtime.server.live_view.controls import Controls
from kdedge_runtime.server.live_view.view_server import Feedback, LiveView

__all__ = ["Controls", "Feedback", "LiveView"]

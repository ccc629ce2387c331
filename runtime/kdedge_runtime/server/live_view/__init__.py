"""Live view: a small web server with the overlay, statistics, controls and feedback."""

from kdedge_runtime.server.live_view.controls import Controls
from kdedge_runtime.server.live_view.view_server import Feedback, LiveView

__all__ = ["Controls", "Feedback", "LiveView"]

"""Live view: a small web server with the overlay, statistics, controls and feedback."""

from kdedge_runtime.view.controls import Controls
from kdedge_runtime.view.server import Feedback, LiveView

__all__ = ["Controls", "Feedback", "LiveView"]

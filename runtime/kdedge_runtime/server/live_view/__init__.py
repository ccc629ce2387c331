"""Live view: a small web server with the overlay, statistics, controls and feedback."""

from kdedge_runtime.server.live_view.class_file import ClassFile
from kdedge_runtime.server.live_view.controls import Controls
from kdedge_runtime.server.live_view.view_server import Feedback, LiveView

__all__ = ["ClassFile", "Controls", "Feedback", "LiveView"]

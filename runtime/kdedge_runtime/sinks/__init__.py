"""Where answers go: JSON lines, a video, pictures, a window, a terminal; the browser has `kdedge_runtime.view`."""

from kdedge_runtime.sinks.folder import PictureFolder
from kdedge_runtime.sinks.jsonl import JsonLines
from kdedge_runtime.sinks.sink import Sink
from kdedge_runtime.sinks.terminal import StatusLine
from kdedge_runtime.sinks.video import VideoFile
from kdedge_runtime.sinks.window import Window

__all__ = ["JsonLines", "PictureFolder", "Sink", "StatusLine", "VideoFile", "Window"]

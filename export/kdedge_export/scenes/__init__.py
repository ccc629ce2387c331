"""Rendered scenes: images of one object each, with an exact mask, without a download."""

from kdedge_export.scenes.icons import LABELS
from kdedge_export.scenes.scene import MIN_SIDE_PX, render_scene

__all__ = ["LABELS", "MIN_SIDE_PX", "render_scene"]

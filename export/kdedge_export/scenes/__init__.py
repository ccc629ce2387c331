"""Rendered scenes: images of one object each, with an exact mask, without a download."""

from kdedge_export.scenes.icons import LABELS
from kdedge_export.scenes.scene import render_scene

__all__ = ["LABELS", "render_scene"]

"""Outputs of a run: JSON lines, a video, images, a window, a terminal; browsers use `kdedge_runtime.server.live_view`.

Each has a module of its own, so that a run loads only what it uses.
"""

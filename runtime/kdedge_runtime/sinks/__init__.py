"""Where answers go: JSON lines, a video, pictures, a window, a terminal; the browser has `kdedge_runtime.view`.

Each has a module of its own, so that a run loads only what it uses.
"""

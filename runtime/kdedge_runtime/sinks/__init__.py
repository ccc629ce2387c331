"""Output sinks: JSON lines, video, image folder, window and terminal. The web view is in `kdedge_runtime.view`.

Each sink has its own module, so that a run imports only what it uses.
"""

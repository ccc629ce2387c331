"""Output sinks: JSON lines, video, image folder, window and terminal; the web view is a package of `server`.

Each sink has its own module, so that a run imports only what it uses.
"""

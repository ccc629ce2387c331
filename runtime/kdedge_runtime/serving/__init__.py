"""Small hardened web server: access control, resource limits and browser security headers."""

from kdedge_runtime.serving.address import Address
from kdedge_runtime.serving.assets import Asset, read_assets, shared_assets
from kdedge_runtime.serving.door import Door
from kdedge_runtime.serving.server import Handler, Server

__all__ = ["Address", "Asset", "Door", "Handler", "Server", "read_assets", "shared_assets"]

"""Small hardened web server: access control, resource limits and browser security headers."""

from kdedge_runtime.server.access import Door
from kdedge_runtime.server.address import Address
from kdedge_runtime.server.http_server import Handler, Server
from kdedge_runtime.server.static_files import Asset, read_assets, shared_assets

__all__ = ["Address", "Asset", "Door", "Handler", "Server", "read_assets", "shared_assets"]

"""A small web server that is safe to leave running: who may ask, how much, and what browsers may do with the answer."""

from kdedge_runtime.serving.address import Address
from kdedge_runtime.serving.assets import Asset, read_assets, shared_assets
from kdedge_runtime.serving.door import Door
from kdedge_runtime.serving.server import Handler, Server

__all__ = ["Address", "Asset", "Door", "Handler", "Server", "read_assets", "shared_assets"]

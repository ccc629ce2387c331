"""Small hardened web server: access control, resource limits and browser security headers."""

from kdedge_runtime.server.access import AccessPolicy
from kdedge_runtime.server.address import Address
from kdedge_runtime.server.http_server import HttpServer
from kdedge_runtime.server.request_handler import RequestHandler
from kdedge_runtime.server.static_files import StaticFile, read_static_files, shared_static_files

__all__ = [
    "Address",
    "StaticFile",
    "AccessPolicy",
    "RequestHandler",
    "HttpServer",
    "read_static_files",
    "shared_static_files",
]

"""Static files, read once at startup. Only listed files are served, so path traversal is impossible."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

__all__ = ["StaticFile", "read_static_files", "shared_static_files"]

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "wasm": "application/wasm",
    "onnx": "application/octet-stream",
    "json": "application/json",
}


@dataclass(frozen=True)
class StaticFile:
    """Static file with its content type."""

    content_type: str
    body: bytes
    gzipped: bool = False
    """True if `body` is gzip-compressed. It is decompressed for clients that do not accept gzip."""

    @classmethod
    def of(cls, name: str, body: bytes) -> "StaticFile":
        """Create an asset from a file name; the suffix `.gz` marks a compressed body."""
        plain = name.removesuffix(".gz")
        return cls(_TYPES[plain.rpartition(".")[2]], body, gzipped=plain != name)

    def for_client(self, accepts: str) -> tuple[bytes, bool]:
        """Return the body for a client's `Accept-Encoding`, and True if it is compressed."""
        if self.gzipped and "gzip" not in accepts:
            return gzip.decompress(self.body), False
        return self.body, self.gzipped


def read_static_files(folder: Traversable, paths: Mapping[str, str]) -> dict[str, StaticFile]:
    """Read files from a package folder.

    Args:
        folder: folder of the files.
        paths: file names by URL path.
    """
    return {path: StaticFile.of(name, folder.joinpath(name).read_bytes()) for path, name in paths.items()}


@lru_cache(maxsize=1)
def shared_static_files() -> dict[str, StaticFile]:
    """Return the files served without a token: the token page and the files shared by all pages."""
    names = {name: name.removeprefix("/") for name in ("/theme.css", "/answer.js", "/chooser.js", "/history.js")}
    return read_static_files(files("kdedge_runtime.server"), {"/": "token.html"} | names)

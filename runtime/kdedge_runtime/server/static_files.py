"""Files of a page, read once: what is not among them cannot be asked for, so that no path leads out of the folder."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

__all__ = ["Asset", "read_assets", "shared_assets"]

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
class Asset:
    """One file as it goes out."""

    content_type: str
    body: bytes
    gzipped: bool = False
    """`body` is compressed; clients that cannot read that get it unpacked."""

    @classmethod
    def of(cls, name: str, body: bytes) -> "Asset":
        """An asset by its file's name; `.gz` at the end means that the body is compressed."""
        plain = name.removesuffix(".gz")
        return cls(_TYPES[plain.rpartition(".")[2]], body, gzipped=plain != name)

    def for_client(self, accepts: str) -> tuple[bytes, bool]:
        """The body, and whether it is compressed, for a client's `Accept-Encoding`."""
        if self.gzipped and "gzip" not in accepts:
            return gzip.decompress(self.body), False
        return self.body, self.gzipped


def read_assets(folder: Traversable, paths: Mapping[str, str]) -> dict[str, Asset]:
    """Read files of a package's folder.

    Args:
        folder: where they are.
        paths: from the URL's path to the file's name.
    """
    return {path: Asset.of(name, folder.joinpath(name).read_bytes()) for path, name in paths.items()}


@lru_cache(maxsize=1)
def shared_assets() -> dict[str, Asset]:
    """What strangers get to see: the page that asks for the token, and what all pages share."""
    names = {name: name.removeprefix("/") for name in ("/theme.css", "/answer.js", "/chooser.js")}
    return read_assets(files("kdedge_runtime.server"), {"/": "token.html"} | names)

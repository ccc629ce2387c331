"""Loopback server with the protocol of a file server and of the Hugging Face Hub, and tiny published weights."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

COMMIT = "c0ffee" + "0" * 34
"""Revision of every repository."""


@dataclass
class WeightServer:
    """Files by path, and the requests that were received."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    """Contents by path; those of the Hub are at `/OWNER/NAME/resolve/main/FILE`."""
    cut: int | None = None
    """Number of bytes after which the connection is closed; None sends whole files."""
    announced: bytes | None = None
    """Content whose hash the Hub announces instead of the file's."""
    requests: list[str] = field(default_factory=list)

    def publish(self, repository: str, name: str, content: bytes) -> None:
        """Add a file of a repository of the Hub."""
        self.files[f"/{repository}/resolve/main/{name}"] = content


@contextmanager
def serving() -> Iterator[WeightServer]:
    """Run a server while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_HEAD(self) -> None:
            self._reply(with_content=False)

        def do_GET(self) -> None:
            self._reply(with_content=True)

        def _reply(self, *, with_content: bool) -> None:
            path = self.path.partition("?")[0].replace(f"/resolve/{COMMIT}/", "/resolve/main/")
            server.requests.append(f"{self.command} {path}")
            content = server.files.get(path)
            if content is None:
                known = any(file.startswith(path.partition("/resolve/")[0] + "/") for file in server.files)
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if "/resolve/" in path:
                etag = hashlib.sha256(content if server.announced is None else server.announced).hexdigest()
                self.send_header("ETag", f'"{etag}"')
                self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_content:
                self.wfile.write(content[: server.cut])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = WeightServer(f"http://127.0.0.1:{http.server_address[1]}")
        Thread(target=http.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            http.shutdown()


def publish_timm(server: WeightServer, network: str, *, classes: int | None = None, seed: int = 0) -> bytes:
    """Publish random weights of a timm network in the layout of timm's repositories, and return the file's content."""
    import timm
    from safetensors.torch import save

    torch.manual_seed(seed)
    config = timm.get_pretrained_cfg(network)
    options = {} if classes is None else {"num_classes": classes}
    content: bytes = save(timm.create_model(network, **options).state_dict())
    server.publish(config.hf_hub_id, "model.safetensors", content)
    return content


def publish_torchvision(
    server: WeightServer, monkeypatch: pytest.MonkeyPatch, network: str, tag: str, state: dict[str, Tensor]
) -> bytes:
    """Publish weights of a torchvision network under a name with their hash, and return the file's content."""
    from torchvision.models import get_model_weights

    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    path = f"/models/{network}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[path] = content
    monkeypatch.setattr(get_model_weights(network)[tag].value, "url", server.address + path)
    return content

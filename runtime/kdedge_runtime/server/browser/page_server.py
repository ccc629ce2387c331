"""Server of a page that runs the model in the browser."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import ClassVar

from kdedge_runtime.drawing.colormap import heat_ramp
from kdedge_runtime.model import Model
from kdedge_runtime.server import Asset, Door, Handler, Server, read_assets, shared_assets
from kdedge_runtime.server.browser.required_input import with_required_input
from kdedge_runtime.server.browser.web_runtime import onnxruntime_web

__all__ = ["WebServer", "about_model"]

_PAGE = {"/": "page.html"} | {
    f"/{name}": name for name in ("web.css", "app.js", "worker.js", "engine.js", "fit.js", "heat.js")
}


class WebServer(Server):
    """Serves the page, the model and onnxruntime-web. It receives no images."""

    def __init__(self, door: Door, model: Model, tls: ssl.SSLContext | None = None) -> None:
        """Create the server and listen. `start` begins answering.

        Args:
            door: address and access policy.
            model: model for the page.
            tls: certificate for HTTPS.

        Raises:
            MissingDependency: onnxruntime-web is not installed.
            UsageError: the address cannot be used.
        """
        self.assets: dict[str, Asset] = {
            **shared_assets(),
            **read_assets(files("kdedge_runtime.server.browser"), _PAGE),
            **onnxruntime_web(),
            "/model.onnx": Asset.of("model.onnx", with_required_input(model.path.read_bytes(), "class_index")),
            "/model.json": Asset.of("model.json", json.dumps(about_model(model)).encode()),
        }
        super().__init__(door, _WebHandler, option="--listen", tls=tls)


def about_model(model: Model) -> dict[str, object]:
    """Return the metadata that the page needs, as a JSON-compatible dictionary."""
    metadata = model.metadata
    return {
        "name": model.path.name,
        "labels": metadata.labels,
        "input": asdict(metadata.input),
        "temperature": metadata.temperature,
        "display": asdict(metadata.outputs.display),
        "has_map": model.has_map,
        "is_quantized": metadata.quantization is not None,
        "ramp": heat_ramp().tolist(),
    }


class _WebHandler(Handler):
    server: WebServer
    scripts: ClassVar[str] = " 'wasm-unsafe-eval'"

    def assets(self) -> Mapping[str, Asset]:
        return self.server.assets

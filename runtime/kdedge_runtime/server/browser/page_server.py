"""Serves a page that runs a model by itself."""

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
    """The page, the model and onnxruntime-web; it sees no picture."""

    def __init__(self, door: Door, model: Model, tls: ssl.SSLContext | None = None) -> None:
        """Listen; `start` answers.

        Args:
            door: where, and who is let in.
            model: what the page runs.
            tls: the certificate to speak HTTPS with.

        Raises:
            MissingDependency: onnxruntime-web is not here.
            UsageError: the address cannot be listened on.
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
    """What a page has to know of a model besides its graph, ready for JSON."""
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

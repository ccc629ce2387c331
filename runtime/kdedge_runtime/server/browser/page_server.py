"""Server of a page that runs the model in the browser."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import ClassVar

from kdedge_runtime.drawing.colormap import heat_ramp
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import BrowserSensor
from kdedge_runtime.model import Model
from kdedge_runtime.precision import FP32
from kdedge_runtime.server import (
    AccessPolicy,
    HttpServer,
    RequestHandler,
    StaticFile,
    read_static_files,
    shared_static_files,
)
from kdedge_runtime.server.browser.required_input import with_required_input
from kdedge_runtime.server.browser.web_runtime import onnxruntime_web
from kdedge_runtime.tasks import TASKS

__all__ = ["WebServer", "describe_model", "sensor_of"]

_FILES = (
    "web.css",
    *("app.js", "worker.js", "engine.js", "sensors.js", "heat.js"),
    *("camera.js", "fit.js", "overlay.js"),
    *(
        "microphone.js",
        "capture.js",
        "sound_file.js",
        "sound_windows.js",
        "resampler.js",
        "log_mel.js",
        "spectrogram.js",
    ),
)
_PAGE = {"/": "page.html"} | {f"/{name}": name for name in _FILES}


class WebServer(HttpServer):
    """Serves the page, the model and onnxruntime-web. It receives no samples."""

    def __init__(self, policy: AccessPolicy, model: Model, tls: ssl.SSLContext | None = None) -> None:
        """Create the server and listen. `start` begins answering.

        Args:
            policy: address and access policy.
            model: model for the page.
            tls: certificate for HTTPS.

        Raises:
            MissingDependency: onnxruntime-web is not installed.
            UsageError: the address cannot be used, or the page has no sensor for the model.
        """
        self.sensor = sensor_of(model)
        self.assets: dict[str, StaticFile] = {
            **shared_static_files(),
            **read_static_files(files("kdedge_runtime.server.browser"), _PAGE),
            **onnxruntime_web(),
            "/model.onnx": StaticFile.of("model.onnx", with_required_input(model.path.read_bytes(), "class_index")),
            "/model.json": StaticFile.of("model.json", json.dumps(describe_model(model)).encode()),
        }
        super().__init__(policy, _WebHandler, option="--listen", tls=tls)


def sensor_of(model: Model) -> BrowserSensor:
    """Return the sensor of the page for a model.

    Raises:
        UsageError: the model takes samples that a browser has no sensor for.
    """
    spec = model.metadata.input
    if spec.browser_sensor is None:
        raise UsageError(
            f"{model.path} takes {spec.kind} samples, but the page in the browser has only a camera and a microphone. "
            f"Use the live view: kdedge run {model.path} --source {spec.example_source} --view"
        )
    return spec.browser_sensor


def describe_model(model: Model) -> dict[str, object]:
    """Return the metadata that the page needs, as a JSON-compatible dictionary."""
    metadata = model.metadata
    return {
        "name": model.path.name,
        "labels": metadata.labels,
        "score_name": TASKS[metadata.task].score_name,
        "sensor": metadata.input.browser_sensor,
        "input": asdict(metadata.input),
        "shape": metadata.input.shape,
        "dtype": metadata.input.dtype.name,
        "temperature": metadata.temperature,
        "display": asdict(metadata.outputs.display),
        "has_map": model.has_map,
        "map_legend": metadata.input.evidence_legend(has_values=metadata.has_values),
        "threshold": None if model.metadata.familiarity is None else model.metadata.familiarity.threshold,
        "is_quantized": metadata.precision != FP32.name,
        "ramp": heat_ramp().tolist(),
    }


class _WebHandler(RequestHandler):
    server: WebServer
    scripts: ClassVar[str] = " 'wasm-unsafe-eval'"

    def assets(self) -> Mapping[str, StaticFile]:
        return self.server.assets

    def sensor(self) -> BrowserSensor:
        return self.server.sensor

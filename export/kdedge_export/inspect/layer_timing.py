"""How long each layer takes on this machine, by onnxruntime's own profiler."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort

from kdedge_export.inspect.structure import Layer, Structure
from kdedge_export.onnx_graph.graph_index import Array
from kdedge_runtime.util.timing import CpuShare

__all__ = ["LayerTimes", "time_layers"]

_WARM_UPS = 3
_RUNS = 15


@dataclass(frozen=True)
class LayerTimes:
    """Times of one image on one thread."""

    by_layer_ms: Mapping[str, float]
    """The fastest of 15 runs by node name, which other programs disturb least.

    onnxruntime fuses layers: a convolution's time holds its activation's, which has none of its own.
    """
    other_ms: float
    """What onnxruntime put in itself: changes of memory layout, casts, fused operators of no single layer."""
    whole_ms: float
    """The fastest whole run, profiling included."""
    is_busy: bool
    """True where other programs used the machine meanwhile, so that the times are rough."""


def time_layers(model: onnx.ModelProto, feed: Mapping[str, Array], structure: Structure) -> LayerTimes:
    """Run a model on one thread and tell where the time goes.

    Args:
        model: the model, optimised as it is when it is used.
        feed: a batch of one.
        structure: the model's layers.
    """
    content = model.SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        options = _options()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        with CpuShare() as share:
            for _ in range(_WARM_UPS + _RUNS):
                session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    taken: dict[str, list[float]] = {}
    whole = [event["dur"] / 1000 for event in events if event["name"] == "model_run"]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event["dur"] / 1000)
    by_layer: dict[str, float] = {}
    layers = {layer.output: layer for layer in structure.layers} | {layer.name: layer for layer in structure.layers}
    other = 0.0
    for kernel, durations in taken.items():
        fastest = min(durations[_WARM_UPS:])
        layer = _layer_of(kernel, layers, set(taken))
        if layer is None:
            other += fastest
        else:
            by_layer[layer] = by_layer.get(layer, 0.0) + fastest
    return LayerTimes(by_layer, other, min(whole[_WARM_UPS:]), share.is_busy)


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def _layer_of(kernel: str, layers: Mapping[str, Layer], kernels: set[str]) -> str | None:
    """The layer that a kernel computes.

    Fused kernels are called after one of their layers, or after the tensor that the last of them gives; they are told
    of the convolution or product among them.
    """
    for prefix in ("", "fused "):
        for suffix in ("", "_nchwc", "_nhwc", "_quant"):
            layer = layers.get(kernel.removeprefix(prefix).removesuffix(suffix))
            while layer is not None:
                before = [item for name in layer.inputs if (item := layers.get(name)) is not None]
                fused = next((item for item in before if not _runs_itself(item, kernels)), None)
                if layer.macs or fused is None:
                    return layer.name
                layer = fused
    return None


def _runs_itself(layer: Layer, kernels: set[str]) -> bool:
    names = (layer.name, layer.output, f"fused {layer.name}")
    return any(name + suffix in kernels for name in names for suffix in ("", "_nchwc", "_nhwc", "_quant"))

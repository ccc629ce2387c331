"""Latency of each layer on this machine, from onnxruntime's profiler."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort

from kdedge_export.inspection.structure import GraphLayer, GraphStructure
from kdedge_export.onnx_graph.graph_index import Array
from kdedge_runtime.util.timing import CpuShare

__all__ = ["LayerTimes", "time_layers"]

_WARM_UPS = 3
_RUNS = 15


@dataclass(frozen=True)
class LayerTimes:
    """Layer latencies of one image with one thread."""

    by_layer_ms: Mapping[str, float]
    """Fastest of 15 runs in milliseconds by node name, the least disturbed by other programs.

    onnxruntime fuses layers: a convolution's time includes its activation, which then has no time of its own.
    """
    other_ms: float
    """Time of operators added by onnxruntime, in milliseconds: layout changes, casts, and fused operators of several
    layers."""
    whole_ms: float
    """Fastest whole run in milliseconds, including profiling."""
    is_busy: bool
    """True if other programs used the machine during the measurement, so that the times are inaccurate."""


def time_layers(model: onnx.ModelProto, feed: Mapping[str, Array], structure: GraphStructure) -> LayerTimes:
    """Measure the latency of each layer with one thread.

    Args:
        model: the model, optimized as when deployed.
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


def _layer_of(kernel: str, layers: Mapping[str, GraphLayer], kernels: set[str]) -> str | None:
    """Return the layer that a kernel computes.

    Fused kernels are named after one of their layers, or after the output of the last one. They are attributed to their
    convolution or product.
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


def _runs_itself(layer: GraphLayer, kernels: set[str]) -> bool:
    names = (layer.name, layer.output, f"fused {layer.name}")
    return any(name + suffix in kernels for name in names for suffix in ("", "_nchwc", "_nhwc", "_quant"))

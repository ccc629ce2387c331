"""Measure the latency overhead of the map: each model's graph with and without it, one image, one thread, ONNX Runtime.

    python tests/benchmarks/explained_cost.py [MODEL ...] [--method METHOD] [--int8] [--seconds S]

Prints a JSON line for each model, and for OpenVINO XAI's branch in the same graph if that package is installed (see
`openvino_xai_cost`). Weights are random; latency does not depend on them. The ratio is the median over paired runs, so
it is comparable between machines.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import openvino_xai_cost
import torch
from model_sweep import cost_of, pictures, saved, without_map

from kdedge.models.model_registry import build_model, pretrained_input
from kdedge.models.model_spec import ModelSpec
from kdedge_export.quantization import QuantizationRecipe, quantize
from kdedge_export.torch_export import ClassifierOnly, ExportedGraph, export_graph, wrap_for_export
from kdedge_runtime import Metadata
from kdedge_runtime.metadata import Outputs
from kdedge_runtime.util.timing import latencies_ms

CLASSES = 1000
MODELS = (
    *("torchvision:resnet18", "torchvision:resnet50", "timm:tf_efficientnet_lite0"),
    *("torchvision:mobilenet_v2", "torchvision:mobilenet_v3_small"),
)


def measure(name: str, method: str, *, int8: bool, seconds: float) -> dict[str, object]:
    torch.manual_seed(0)
    spec = pretrained_input(name)
    deployed = wrap_for_export(build_model(ModelSpec(name, CLASSES), spec.height), spec, method)
    graph = export_graph(deployed)
    model = graph.model
    if int8:
        few = pictures(spec, 8, 5)
        model = quantize(ExportedGraph(model, graph.head_nodes), few, few, QuantizationRecipe()).model
    labels = tuple(map(str, range(CLASSES)))
    with tempfile.TemporaryDirectory() as folder:
        explained = saved(model, Metadata(labels, spec, deployed.outputs), Path(folder) / "with.onnx")
        plain = saved(without_map(model), Metadata(labels, spec, Outputs("none")), Path(folder) / "without.onnx")
        images = pictures(spec, 1, 1)
        cost = cost_of(explained, plain, images, seconds)
        with_ms, without_ms = latencies_ms(lambda: explained.predict(images), lambda: plain.predict(images))
    return {
        "model": name,
        "method": method,
        "precision": "int8" if int8 else "fp32",
        "side_px": spec.height,
        "head": deployed.explained.head_description,
        "cost": round(cost, 4),
        "with_ms": round(with_ms, 3),
        "without_ms": round(without_ms, 3),
    }


def measure_peer(name: str, seconds: float) -> Iterator[dict[str, object]]:
    """Measure the same model in OpenVINO, without a map and with each branch of OpenVINO XAI."""
    torch.manual_seed(0)
    spec = pretrained_input(name)
    plain = export_graph(ClassifierOnly(build_model(ModelSpec(name, CLASSES), spec.height).eval(), spec)).model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.onnx"
        onnx.save(plain, path)
        for method in openvino_xai_cost.METHODS:
            cost, with_ms, without_ms = openvino_xai_cost.branch_cost(path, pictures(spec, 1, 1), method, seconds)
            yield {
                "model": name,
                "method": f"OpenVINO XAI {method}",
                "precision": "fp32",
                "side_px": spec.height,
                "cost": round(cost, 4),
                "with_ms": round(with_ms, 3),
                "without_ms": round(without_ms, 3),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--method", action="append", help="saliency method, repeatable [default: cam and gradcam]")
    parser.add_argument("--int8", action="store_true", help="also measure the quantized graph")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each measurement in s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.models:
        for method in arguments.method or ("cam", "gradcam"):
            if method == "cam" and "mobilenet_v3" in name:
                continue  # has two dense layers, for which CAM is undefined
            for int8 in (False, True) if arguments.int8 else (False,):
                row = measure(name, method, int8=int8, seconds=arguments.seconds)
                print(json.dumps(row), flush=True)
        for row in measure_peer(name, arguments.seconds) if openvino_xai_cost.INSTALLED else ():
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

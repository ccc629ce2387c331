"""Measure the latency overhead of OpenVINO XAI's branch in OpenVINO for the same graph, if it is installed.

    pip install --no-deps openvino_xai "openvino==2024.4.*" openvino-telemetry

Its requirements pin NumPy 1, which kdedge does not use; these three packages suffice for its inserter.
"""

import importlib.util
import logging
import time
from pathlib import Path

import numpy as np

__all__ = ["INSTALLED", "METHODS", "branch_cost"]

INSTALLED = importlib.util.find_spec("openvino_xai") is not None
METHODS = ("ACTIVATIONMAP", "RECIPROCAM")
"""Methods: one class-independent activation map, and maps of all classes with one tail per map position."""


def branch_cost(plain: Path, images: np.ndarray, method: str, seconds: float) -> tuple[float, float, float]:
    """Compute the median ratio of paired runs with and without the branch, and both median latencies in ms.

    Args:
        plain: ONNX file without a map, whose only input takes `images`.
        images: One image.
        method: One of `METHODS`.
        seconds: Duration of the measurement.
    """
    import openvino
    import openvino_xai

    logging.getLogger("openvino_xai").setLevel(logging.ERROR)
    core = openvino.Core()
    model = core.read_model(plain)
    model.reshape(list(images.shape))
    explained = openvino_xai.insert_xai(
        model.clone(), openvino_xai.Task.CLASSIFICATION, explain_method=openvino_xai.Method[method]
    )
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    requests = [core.compile_model(one, "CPU", settings).create_infer_request() for one in (explained, model)]
    times: list[tuple[float, float]] = []
    started = time.perf_counter()
    while len(times) < 12 or time.perf_counter() - started < seconds:
        pair = [0.0, 0.0]
        for which in (0, 1) if len(times) % 2 else (1, 0):  # the second run finds warm caches
            before = time.perf_counter()
            requests[which].infer([images])
            pair[which] = (time.perf_counter() - before) * 1000
        times.append((pair[0], pair[1]))
    measured = np.array(times[2:])
    with_ms, without_ms = np.median(measured, axis=0)
    return float(np.median(measured[:, 0] / measured[:, 1])), float(with_ms), float(without_ms)

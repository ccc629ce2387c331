"""What OpenVINO XAI's branch costs, in OpenVINO, for the same graph: a peer to measure beside, where it is installed.

    pip install --no-deps openvino_xai "openvino==2024.4.*" openvino-telemetry

Its own requirements pin NumPy 1, which kdedge does not use; these three are what its inserter needs.
"""

import importlib.util
import logging
import time
from pathlib import Path

import numpy as np

__all__ = ["INSTALLED", "METHODS", "branch_cost"]

INSTALLED = importlib.util.find_spec("openvino_xai") is not None
METHODS = ("ACTIVATIONMAP", "RECIPROCAM")
"""One map of the activations, whatever the class; and the maps of all classes by as many tails as the map has cells."""


def branch_cost(plain: Path, images: np.ndarray, method: str, seconds: float) -> tuple[float, float, float]:
    """Median ratio of paired runs with the branch and without it, and the median milliseconds of both, on one thread.

    Args:
        plain: an ONNX file without a map, whose only input takes `images`.
        images: one image.
        method: one of `METHODS`.
        seconds: how long to measure.
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
        for which in (0, 1) if len(times) % 2 else (1, 0):  # whoever comes second finds warm caches
            before = time.perf_counter()
            requests[which].infer([images])
            pair[which] = (time.perf_counter() - before) * 1000
        times.append((pair[0], pair[1]))
    measured = np.array(times[2:])
    with_ms, without_ms = np.median(measured, axis=0)
    return float(np.median(measured[:, 0] / measured[:, 1])), float(with_ms), float(without_ms)

"""Run graphs that are still in memory."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from kdedge_runtime.int8_arithmetic import sum_exactly
from kdedge_runtime.metadata import TOP_CLASS
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.timing import latencies_ms

__all__ = ["feed", "open_session", "paired_latency_ms"]


def open_session(model: onnx.ModelProto, threads: int = 1, *, exact_int8: bool) -> ort.InferenceSession:
    """Open a graph on the CPU.

    Args:
        model: of less than 2 GB.
        threads: that work on one operation.
        exact_int8: compute quantized operations with exact sums, to judge the graph; False takes the machine's integer
            kernels, to time it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if exact_int8:
        sum_exactly(options)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feed(session: ort.InferenceSession, images: Pixels, class_index: int = TOP_CLASS) -> Mapping[str, NDArray[Any]]:
    """What a session takes: images, and the class to explain if it explains one.

    Args:
        session: of a graph with the input `image`.
        images: uint8 RGB `[N, H, W, 3]` at the graph's size.
        class_index: for all of them; -1 explains each one's top class.
    """
    values: dict[str, NDArray[Any]] = {"image": images}
    if any(item.name == "class_index" for item in session.get_inputs()):
        values["class_index"] = np.array([class_index])
    return values


def paired_latency_ms(sessions: Sequence[ort.InferenceSession], image: Pixels, runs: int = 30) -> tuple[float, ...]:
    """Median latency of each session on one image, run in turn so that a machine that slows down slows all.

    Args:
        sessions: what to measure.
        image: uint8 `[1, H, W, 3]`.
        runs: counted runs of each, after five that are not.
    """
    feeds = [feed(session, image) for session in sessions]
    calls = [partial(session.run, None, values) for session, values in zip(sessions, feeds, strict=True)]
    return latencies_ms(*calls, runs=runs)

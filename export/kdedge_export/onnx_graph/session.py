"""Inference sessions for graphs in memory."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from kdedge_runtime.int8_arithmetic import use_exact_sums
from kdedge_runtime.metadata import TOP_CLASS
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.timing import latencies_ms

__all__ = ["make_feed", "open_session", "paired_latency_ms"]


def open_session(model: onnx.ModelProto, threads: int = 1, *, exact_sums: bool) -> ort.InferenceSession:
    """Open a graph on the CPU.

    Args:
        model: model of less than 2 GB.
        threads: number of intra-op threads.
        exact_sums: True computes quantized operations with exact sums, for evaluation; False uses the machine's integer
            kernels, for timing.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if exact_sums:
        use_exact_sums(options)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def make_feed(
    session: ort.InferenceSession, images: Pixels, class_index: int = TOP_CLASS
) -> Mapping[str, NDArray[Any]]:
    """Return the inputs of a session: images, and the class to explain if it has that input.

    Args:
        session: session with an image input.
        images: uint8 RGB `[N, H, W, 3]` at the graph's size.
        class_index: class for all images; -1 explains each image's top-1 class.
    """
    return {
        item.name: np.array([class_index]) if item.name == "class_index" else images for item in session.get_inputs()
    }


def paired_latency_ms(sessions: Sequence[ort.InferenceSession], image: Pixels, runs: int = 30) -> tuple[float, ...]:
    """Measure the median latency of each session on one image, interleaved so that slowdowns affect all equally.

    Args:
        sessions: sessions to measure.
        image: uint8 `[1, H, W, 3]`.
        runs: measured runs of each, after five warm-up runs.
    """
    feeds = [make_feed(session, image) for session in sessions]
    calls = [partial(session.run, None, values) for session, values in zip(sessions, feeds, strict=True)]
    return latencies_ms(*calls, runs=runs)

"""Inference sessions for graphs in memory."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from kdedge_runtime.devices.detection import machine_name
from kdedge_runtime.int8_arithmetic import use_exact_sums
from kdedge_runtime.metadata import TOP_CLASS
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.timing import latencies_ms

__all__ = ["CPU", "latency_note", "make_feed", "open_session", "paired_latency_ms"]

CPU = "CPUExecutionProvider"


def open_session(
    model: onnx.ModelProto,
    threads: int | None = 1,
    *,
    exact_sums: bool,
    folder: Path | None = None,
    provider: str = CPU,
) -> ort.InferenceSession:
    """Open a graph in memory.

    Args:
        model: model of less than 2 GB.
        threads: number of intra-op threads; None for all cores.
        exact_sums: True computes quantized operations with exact sums, for evaluation; False uses the machine's integer
            kernels, for timing.
        folder: folder of external weights, if they are not loaded.
        provider: onnxruntime's execution provider; the CPU computes operators that it does not support.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if exact_sums:
        use_exact_sums(options)
    providers = list(dict.fromkeys([provider, CPU]))
    return ort.InferenceSession(model.SerializeToString(), options, providers=providers)


def make_feed(
    session: ort.InferenceSession, samples: Pixels, class_index: int = TOP_CLASS
) -> Mapping[str, NDArray[Any]]:
    """Return the inputs of a session: samples, and the class to explain if it has that input.

    Args:
        session: session of an exported graph.
        samples: preprocessed samples `[N, …]` at the graph's size.
        class_index: class for all samples; -1 explains each sample's top-1 class.
    """
    return {
        item.name: np.array([class_index]) if item.name == "class_index" else samples for item in session.get_inputs()
    }


def paired_latency_ms(sessions: Sequence[ort.InferenceSession], sample: Pixels, runs: int = 30) -> tuple[float, ...]:
    """Measure the median latency of each session on one sample, interleaved so that slowdowns affect all equally.

    Args:
        sessions: sessions to measure.
        sample: preprocessed sample `[1, …]`.
        runs: measured runs of each, after five warm-up runs.
    """
    feeds = [make_feed(session, sample) for session in sessions]
    calls = [partial(session.run, None, values) for session, values in zip(sessions, feeds, strict=True)]
    return latencies_ms(*calls, runs=runs)


def latency_note(models: Mapping[str, onnx.ModelProto], sample: Pixels, runs: int = 30) -> dict[str, Any]:
    """Measure graphs on one thread of this machine, for the metadata of a model file.

    Args:
        models: graphs by the name of their precision.
        sample: preprocessed sample `[1, …]`.
        runs: measured runs of each, see `paired_latency_ms`.

    Returns:
        The latency of each graph in ms by name, `machine` and `threads`.
    """
    sessions = [open_session(model, exact_sums=False) for model in models.values()]
    latencies = paired_latency_ms(sessions, sample, runs)
    return dict(zip(models, latencies, strict=True)) | {"machine": machine_name(), "threads": 1}

"""Activations of a model's target layer, which are computed in its file but not an output."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import onnxruntime as ort

from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.model import Model
from kdedge_runtime.onnx_session import run_session
from kdedge_runtime.util import protobuf
from kdedge_runtime.util.arrays import Floats

__all__ = ["ACTIVATIONS", "Activations", "target_activations"]

ACTIVATIONS = "target_activations"
"""Name of the tensor, float32 `[N, C, h, w]`, in graphs that `kdedge export` writes with a map."""
_TENSORS = (f"{ACTIVATIONS}_DequantizeLinear_Output", ACTIVATIONS)
"""Tensor names in quantized and float files. In quantized files the quantization implements the layer's ReLU, so its
output is used.
"""
Activations: TypeAlias = Callable[[Sample], Floats]
"""Function from the model input, uint8 `[H, W, 3]`, to activations `[C, h, w]`."""


def target_activations(model: Model) -> Activations:
    """Open a model file again with the target layer's activations as an additional output.

    Raises:
        UsageError: the graph has no such tensor. It was exported without a map or by another tool, or its map is a
        gradient.
    """
    opened = next((found for name in _TENSORS if (found := _with_output(model, name)) is not None), None)
    if opened is None:
        raise UsageError(
            f"Score-CAM needs the activations of the target layer, but the graph of {model.path} has no tensor "
            f"{ACTIVATIONS}. `kdedge export` adds it if the map has a closed form. Use another --method, such as "
            "occlusion. (With the full package, `kdedge explain` uses the last layer aligned with the "
            "sample, if there is one and its resolution matches the map.)"
        )
    session, name = opened

    def activations(sample: Sample) -> Floats:
        (found,) = run_session(session, [name], {model.metadata.input.name: sample[None]}, model.path)
        result: Floats = found[0].astype(np.float32, copy=False)  # float16 in an fp16 file
        return result

    return activations


def _with_output(model: Model, name: str) -> tuple[ort.InferenceSession, str] | None:
    content = model.path.read_bytes()
    if name not in {output.name for output in model.session.get_outputs()}:
        content += _one_more_output(name)
    options = model.session.get_session_options()
    try:
        return ort.InferenceSession(content, options, providers=model.session.get_providers()), name
    except Exception:  # no tensor has this name; onnxruntime's exceptions have no common public base class
        return None


def _one_more_output(name: str) -> bytes:
    """Return bytes that make a tensor an output when appended to an ONNX file.

    Protocol Buffers merges repeated occurrences of an embedded message and concatenates their repeated fields. A second
    graph with one output therefore extends the first. onnxruntime infers its type.
    """
    output = protobuf.encode_field(protobuf.VALUE_NAME, name.encode())
    return protobuf.encode_field(protobuf.MODEL_GRAPH, protobuf.encode_field(protobuf.GRAPH_OUTPUT, output))

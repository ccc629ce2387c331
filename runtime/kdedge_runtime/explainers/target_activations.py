"""The activations of a model's target layer, which its file computes but does not give."""

from collections.abc import Callable
from typing import TypeAlias

import onnxruntime as ort

from kdedge_runtime.errors import UsageError
from kdedge_runtime.model import Model
from kdedge_runtime.onnx_session import run_session
from kdedge_runtime.util import protobuf
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["ACTIVATIONS", "Activations", "target_activations"]

ACTIVATIONS = "target_activations"
"""The name of the tensor float32 `[N, C, h, w]` in graphs that `kdedge export` writes with a map."""
_TENSORS = (f"{ACTIVATIONS}_DequantizeLinear_Output", ACTIVATIONS)
"""An int8 file leaves the layer's ReLU to the quantization: there the activations are what comes out of it."""
Activations: TypeAlias = Callable[[Pixels], Floats]
"""From the model's input uint8 `[H, W, 3]` to `[C, h, w]`."""


def target_activations(model: Model) -> Activations:
    """Open a model's file a second time, with its target layer's activations as one more output.

    Raises:
        UsageError: the graph has no tensor of that name: it was exported without a map or by something else, or its map
            is differentiated.
    """
    opened = next((found for name in _TENSORS if (found := _with_output(model, name)) is not None), None)
    if opened is None:
        raise UsageError(
            f"Score-CAM masks with the activations of the target layer, and {model.path} does not tell which they are: "
            f"its graph has no tensor {ACTIVATIONS}, as kdedge export names them where the map has a closed form. "
            "Take another --method: occlusion, rise, lime or shap. (`kdedge explain`, where kdedge is installed, takes "
            "the last layer that lies over the picture, if there is one and the file's own map has its cells.)"
        )
    session, name = opened

    def activations(image: Pixels) -> Floats:
        (found,) = run_session(session, [name], {model.metadata.input.name: image[None]}, model.path)
        result: Floats = found[0]
        return result

    return activations


def _with_output(model: Model, name: str) -> tuple[ort.InferenceSession, str] | None:
    content = model.path.read_bytes()
    if name not in {output.name for output in model.session.get_outputs()}:
        content += _one_more_output(name)
    options = model.session.get_session_options()
    try:
        return ort.InferenceSession(content, options, providers=model.session.get_providers()), name
    except Exception:  # no tensor has this name; onnxruntime raises its own types without a common, public base
        return None


def _one_more_output(name: str) -> bytes:
    """What makes a tensor of a graph an output, when it follows the bytes of an ONNX file.

    Protocol Buffers merge an embedded message that comes twice, and append to its repeated fields: so a second graph
    with one output adds to the first. onnxruntime infers its type.
    """
    output = protobuf.held(protobuf.VALUE_NAME, name.encode())
    return protobuf.held(protobuf.MODEL_GRAPH, protobuf.held(protobuf.GRAPH_OUTPUT, output))

"""Input of teachers for sounds from other frameworks: PCM `[N, S]` in [-1, 1]."""

import numpy as np

from kdedge.modalities.audio_defaults import MAX_RATE_HZ, make_audio_input
from kdedge.models.graph_feed import GraphFeed, feed_samples
from kdedge_export.onnx_graph.graph_index import GraphIndex
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.modalities.audio import AudioInput

__all__ = ["find_sound_feed"]

_FLOAT = 1
"""Value of float32 in `onnx.TensorProto.DataType`."""


def find_sound_feed(view: GraphIndex, name: str) -> tuple[AudioInput, GraphFeed]:
    """Describe the input of a graph that takes PCM; such files do not state their rate, which is taken as 16 kHz.

    Args:
        view: the graph.
        name: name of the file in messages.

    Raises:
        ModelFileError: the graph takes something else.
    """
    weights = {item.name for item in view.model.graph.initializer}
    ports = [port for port in view.model.graph.input if port.name not in weights]
    shapes = [[axis.dim_value or None for axis in port.type.tensor_type.shape.dim] for port in ports]
    expected = (
        "Expected one input of floats [N, S]: PCM in [-1, 1] at 16 kHz with a fixed number of samples S, a multiple of "
        "320. A network for features needs the graph of its front end before it (onnx.compose.merge_models)."
    )
    taken = ", ".join(
        f"{port.name} {[size or '?' for size in shape]}" for port, shape in zip(ports, shapes, strict=True)
    )
    if len(ports) != 1 or ports[0].type.tensor_type.elem_type != _FLOAT or len(shapes[0]) != 2 or shapes[0][1] is None:
        raise ModelFileError(f"{name} is not usable as a teacher of sounds: it takes {taken or 'nothing'}. {expected}")
    batch, samples = shapes[0]
    spec = make_audio_input(MAX_RATE_HZ, (samples or 0) / MAX_RATE_HZ)
    if spec.samples != samples:
        raise ModelFileError(f"{name} takes {taken}, but windows have whole frames. {expected}")
    return spec, feed_samples(ports[0].name, np.dtype(np.float32), batch)

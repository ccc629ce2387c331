"""Convert an optional model input to a required one, because onnxruntime-web cannot feed optional inputs.

An optional ONNX input has an initializer of the same name. onnxruntime-web (1.30) does not list it as an input and
rejects values for it, so the initializer is removed.
"""

from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.util import protobuf

__all__ = ["with_required_input"]


def with_required_input(model: bytes, name: str) -> bytes:
    """Return the model without the default of its input `name`; unchanged if there is none.

    Raises:
        ModelFileError: the bytes are not an ONNX model.
    """
    try:
        parts = [
            protobuf.encode_field(field.number, _without_initializer(field.content, name.encode()))
            if field.number == protobuf.MODEL_GRAPH
            else field.whole
            for field in protobuf.fields(model)
        ]
    except ValueError as error:
        raise ModelFileError(f"The model file is damaged: {error}. Copy or export it again.") from error
    return b"".join(parts)


def _without_initializer(graph: memoryview, name: bytes) -> bytes:
    return b"".join(
        field.whole
        for field in protobuf.fields(graph)
        if field.number != protobuf.GRAPH_INITIALIZER
        or name not in protobuf.string_values(field.content, protobuf.TENSOR_NAME)
    )

"""Make an optional input of a model file a required one, since onnxruntime-web feeds no other.

An optional input of ONNX is one that has an initializer of the same name. onnxruntime-web (1.30) does not count it as
an input and refuses to be given it, so the initializer has to go. That is a cut in the file's protobuf, which needs no
onnx package: fields are copied as they are, except for the one that goes and the length of what held it.

Format: https://protobuf.dev/programming-guides/encoding and onnx/onnx.proto.
"""

from collections.abc import Iterator

from kdedge_runtime.errors import ModelFileError

__all__ = ["with_required_input"]

_GRAPH = 7
"""`ModelProto.graph`."""
_INITIALIZER = 5
"""`GraphProto.initializer`."""
_NAME = 8
"""`TensorProto.name`."""
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def with_required_input(model: bytes, name: str) -> bytes:
    """The model without the default of its input `name`; the same where it has none.

    Raises:
        ModelFileError: the bytes are no ONNX model.
    """
    try:
        parts = [
            _held(field, _without_initializer(content, name.encode())) if field == _GRAPH else whole
            for field, content, whole in _fields(memoryview(model))
        ]
    except (IndexError, ValueError) as error:
        raise ModelFileError("The model file is damaged: it is not ONNX. Copy or export it again.") from error
    return b"".join(parts)


def _without_initializer(graph: memoryview, name: bytes) -> bytes:
    return b"".join(
        whole
        for field, content, whole in _fields(graph)
        if not (field == _INITIALIZER and any(at == _NAME and text == name for at, text, _ in _fields(content)))
    )


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The fields of a message as `(number, content, the field as it stands)`; content of lengths only."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        kind = key & 7
        content = message[:0]
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _LENGTH:
            length, at = _varint(message, at)
            content = message[at : at + length]
            at += length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            at += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(message):
            raise ValueError("a field ends beyond its message")
        yield key >> 3, content, message[start:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _held(field: int, content: bytes) -> bytes:
    return _encoded(field << 3 | _LENGTH) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

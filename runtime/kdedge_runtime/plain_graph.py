"""The same model without its map, to measure what the map costs.

onnxruntime computes every node of a graph, also those whose outputs nobody asks for, so they have to be taken out of
the file. The runtime has no `onnx` package; the few fields that matter are read from the file's wire format.
Source: onnx.proto of ONNX, and the encoding of Protocol Buffers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["keep_output"]

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_OUTPUT = 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPHS = (6, 11)
_VALUE_NAME = 1
_BYTES = 2
"""The wire type of texts and nested messages."""


@dataclass(frozen=True)
class _Field:
    number: int
    wire_type: int
    value: bytes
    """Of a text or message, its content; empty of numbers."""
    raw: bytes
    """The whole field as it stands in the file."""


def keep_output(model: bytes, name: str) -> bytes:
    """An ONNX file with one output only, and only the nodes that it needs.

    Args:
        model: the content of a model file whose nodes are in order, as ONNX asks.
        name: the output.

    Raises:
        ValueError: the content is no ONNX file, has no such output, or has nodes with graphs inside, which may need
            values in ways that this does not follow.
    """
    fields = list(_fields(model))
    if sum(field.number == _MODEL_GRAPH for field in fields) != 1:
        raise ValueError("the file holds no graph")
    return b"".join(
        _message(field, _pruned(field.value, name)) if field.number == _MODEL_GRAPH else field.raw for field in fields
    )


def _pruned(graph: bytes, name: str) -> bytes:
    fields = list(_fields(graph))
    needed, kept = {name.encode()}, []
    for field in reversed(fields):
        if field.number == _GRAPH_NODE:
            parts = list(_fields(field.value))
            if any(part.number == _NODE_ATTRIBUTE and _holds_graph(part.value) for part in parts):
                raise ValueError("a node holds a graph of its own")
            if needed.isdisjoint(part.value for part in parts if part.number == _NODE_OUTPUT):
                continue
            needed |= {part.value for part in parts if part.number == _NODE_INPUT}
        elif field.number == _GRAPH_OUTPUT and _value_name(field.value) != name.encode():
            continue
        kept.append(field)
    if not any(field.number == _GRAPH_OUTPUT for field in kept):
        raise ValueError(f"the graph has no output {name}")
    return b"".join(field.raw for field in reversed(kept))


def _holds_graph(attribute: bytes) -> bool:
    return any(part.number in _ATTRIBUTE_GRAPHS for part in _fields(attribute))


def _value_name(value_info: bytes) -> bytes:
    return next((part.value for part in _fields(value_info) if part.number == _VALUE_NAME), b"")


def _fields(message: bytes) -> Iterator[_Field]:
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        wire_type, value = tag & 7, b""
        if wire_type == 0:
            _, position = _varint(message, position)
        elif wire_type == 1:
            position += 8
        elif wire_type == _BYTES:
            length, position = _varint(message, position)
            value = message[position : position + length]
            position += length
        elif wire_type == 5:
            position += 4
        else:
            raise ValueError(f"the file is no Protocol Buffers message: wire type {wire_type}")
        if position > len(message):
            raise ValueError("the file is cut off")
        yield _Field(tag >> 3, wire_type, value, message[start:position])


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise ValueError("the file is cut off")


def _message(field: _Field, value: bytes) -> bytes:
    return _encoded(field.number << 3 | _BYTES) + _encoded(len(value)) + value


def _encoded(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)

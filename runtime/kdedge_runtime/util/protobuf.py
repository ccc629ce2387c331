"""Minimal Protocol Buffers parser for ONNX files, without the onnx package.

A message is a sequence of fields, and a nested message is one of them. Files can therefore be pruned without a schema:
fields are copied unchanged, except for removed ones and the lengths of their containers.

Source: https://protobuf.dev/programming-guides/encoding; onnx.proto of ONNX for the field numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "ATTRIBUTE_GRAPHS",
    "GRAPH_INITIALIZER",
    "GRAPH_NODE",
    "GRAPH_OUTPUT",
    "MODEL_GRAPH",
    "NODE_ATTRIBUTE",
    "NODE_INPUT",
    "NODE_OUTPUT",
    "TENSOR_NAME",
    "VALUE_NAME",
    "Field",
    "fields",
    "encode_field",
    "string_values",
]

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_OUTPUT = 1, 5, 12
NODE_INPUT, NODE_OUTPUT, NODE_ATTRIBUTE = 1, 2, 5
ATTRIBUTE_GRAPHS = (6, 11)
TENSOR_NAME, VALUE_NAME = 8, 1
_VARINT, _EIGHT_BYTES, _HELD, _FOUR_BYTES = 0, 1, 2, 5
"""Wire types. Length-delimited fields hold strings and messages."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message, as views without copies."""

    number: int
    content: memoryview
    """Content of a string or message; empty for numbers."""
    whole: memoryview
    """Complete encoded field."""


def fields(message: bytes | memoryview) -> Iterator[Field]:
    """Yield the fields of a message in order.

    Raises:
        ValueError: the message is invalid or truncated.
    """
    message = memoryview(message)
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        kind, content = tag & 7, message[:0]
        if kind == _VARINT:
            _, position = _varint(message, position)
        elif kind == _HELD:
            length, position = _varint(message, position)
            content = message[position : position + length]
            position += length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            position += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"the file is not a Protocol Buffers message: wire type {kind}")
        if position > len(message):
            raise ValueError("the file is truncated")
        yield Field(tag >> 3, content, message[start:position])


def string_values(message: bytes | memoryview, number: int) -> set[bytes]:
    """Return the contents of all fields with a number, such as the names of a node's inputs."""
    return {bytes(field.content) for field in fields(message) if field.number == number}


def encode_field(number: int, content: bytes) -> bytes:
    """Encode a string or message field."""
    return _encoded(number << 3 | _HELD) + _encoded(len(content)) + content


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise ValueError("the file is truncated")


def _encoded(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)

"""Helpers for ONNX nodes."""

from typing import Any

import onnx
from onnx import helper

__all__ = ["WEIGHTED", "attributes"]

WEIGHTED = {"Conv", "Gemm", "MatMul"}
"""Operators that multiply by weights and begin a layer."""


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name, as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

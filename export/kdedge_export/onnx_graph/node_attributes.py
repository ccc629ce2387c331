"""What ONNX nodes say of themselves."""

from typing import Any

import onnx
from onnx import helper

__all__ = ["WEIGHTED", "attributes"]

WEIGHTED = {"Conv", "Gemm", "MatMul"}
"""What multiplies with weights, and begins a layer."""


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name, as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

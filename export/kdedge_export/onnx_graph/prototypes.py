"""Prototypes of an embedding model: a constant of its graph in memory, and an optional input of its file."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge_runtime.embedding import PROTOTYPES
from kdedge_runtime.util.arrays import Floats

__all__ = ["allow_other_prototypes", "fix_prototypes", "has_prototypes", "store_prototypes"]

_ANY_NUMBER = "prototypes"


def has_prototypes(model: onnx.ModelProto) -> bool:
    """Return True if a graph has prototypes."""
    return any(tensor.name == PROTOTYPES for tensor in model.graph.initializer)


def store_prototypes(model: onnx.ModelProto, prototypes: Floats) -> None:
    """Replace the graph input `prototypes` by these values, float32 `[K, D]`, in place."""
    fix_prototypes(model)
    model.graph.initializer.append(numpy_helper.from_array(prototypes.astype(np.float32), PROTOTYPES))


def fix_prototypes(model: onnx.ModelProto) -> None:
    """Remove the graph input `prototypes`, in place, since a constant with an input of its name confuses quantizers."""
    kept = [value for value in model.graph.input if value.name != PROTOTYPES]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def allow_other_prototypes(model: onnx.ModelProto) -> None:
    """Add the graph input `prototypes` in place, float32 `[M, D]` with any M, whose default is the constant."""
    (stored,) = (tensor for tensor in model.graph.initializer if tensor.name == PROTOTYPES)
    shape = [_ANY_NUMBER, stored.dims[1]]
    model.graph.input.append(helper.make_tensor_value_info(PROTOTYPES, TensorProto.FLOAT, shape))

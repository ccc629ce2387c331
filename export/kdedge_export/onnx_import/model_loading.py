"""Loading of third-party `.onnx` files into a form that can be modified."""

from pathlib import Path

import numpy as np
import onnx
from onnx import inliner, version_converter

from kdedge_export.onnx_graph.graph_index import GraphIndex, run_graph
from kdedge_export.onnx_graph.graph_input import find_image_input, make_example_feed
from kdedge_export.onnx_import.foreign_file import ForeignFile
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.onnx_session import first_line

__all__ = ["load_foreign_model", "simplify_model", "unused_inputs"]

_OLDEST_OPSET = 7
"""First opset supported by onnxruntime."""
_OPSET_OF_MAPS = 9
"""First opset with the operators of a map (Where, OneHot); older files are converted in memory."""
_CONVERTED_TOLERANCE = 1e-5
"""Largest difference of a converted graph's outputs, relative to their range."""
_OVERRIDABLE_SINCE_IR = 4
"""First IR version in which an initializer with an input's name is a default and not a constant."""
_MAX_BYTES = 2_000_000_000
"""Maximum size of a file including its weights; protobuf is limited to 2 GiB."""


def load_foreign_model(file: ForeignFile) -> onnx.ModelProto:
    """Return a file's model with its weights embedded, its functions inlined, and unused inputs removed.

    Opsets 7 and 8 are converted to 9, and both graphs are compared on random images. The file's own model may be
    modified.

    Raises:
        ModelFileError: the file is too old or too large.
    """
    path = file.path
    if file.size_bytes > _MAX_BYTES:
        raise ModelFileError(f"{path} has more than 2 GB of weights, which exceeds the limit of a single .onnx file.")
    onnx.load_external_data_for_model(file.model, str(path.parent))
    model = simplify_model(file)
    return model if _opset(model) >= _OPSET_OF_MAPS else _converted(model, path)


def simplify_model(file: ForeignFile) -> onnx.ModelProto:
    """Return a file's model with its functions inlined and unused inputs removed; the file's own may be modified.

    Raises:
        ModelFileError: the graph is empty or too old.
    """
    path, model, opset = file.path, file.model, _opset(file.model)
    if not model.graph.node:
        raise ModelFileError(f"{path} has no operators. Expected an .onnx file with a classifier.")
    if opset < _OLDEST_OPSET:
        raise ModelFileError(
            f"{path} uses opset {opset}, but onnxruntime supports {_OLDEST_OPSET} and later. Export the model again."
        )
    if model.functions:
        model = inliner.inline_local_functions(model)
    useless = set(unused_inputs(model))
    if model.ir_version < _OVERRIDABLE_SINCE_IR:
        useless |= {tensor.name for tensor in model.graph.initializer}
        model.ir_version = _OVERRIDABLE_SINCE_IR
    kept = [value for value in model.graph.input if value.name not in useless]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def _opset(model: onnx.ModelProto) -> int:
    return next((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)


def _converted(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Convert a graph to the first opset that supports maps, and compare both on images."""
    opset = _opset(model)
    try:
        newer = version_converter.convert_version(model, _OPSET_OF_MAPS)
    except Exception as error:  # the converter raises RuntimeError and its own types
        raise ModelFileError(
            f"{path} uses opset {opset} and cannot be converted to {_OPSET_OF_MAPS}: {first_line(error)} Export the "
            "model again in a later opset."
        ) from error
    names = [value.name for value in model.graph.output]
    feed = make_example_feed(find_image_input(GraphIndex(model), str(path)), None)
    before, after = (run_graph(graph, names, feed, str(path)) for graph in (model, newer))
    for name in names:
        expected, got = before[name].astype(np.float64), after[name].astype(np.float64)
        reach = max(float(np.ptp(expected)), 1e-12) if expected.size else 1.0
        if got.shape != expected.shape or not np.abs(got - expected).max(initial=0) <= _CONVERTED_TOLERANCE * reach:
            raise ModelFileError(
                f"{path} uses opset {opset}, and its output {name} changes when it is converted to {_OPSET_OF_MAPS}. "
                "Export the model again in a later opset."
            )
    return newer


def unused_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return inputs without a default that no node reads, such as constants that tf2onnx folded.

    onnxruntime requires a value for each nevertheless.
    """
    view = GraphIndex(model)
    read = view.consumers.keys() | {value.name for value in model.graph.output}
    return tuple(name for name in view.inputs if name not in read)

"""Read somebody else's `.onnx` file into a form that can be operated on."""

from pathlib import Path

import numpy as np
import onnx
from onnx import inliner, version_converter

from kdedge_export.onnx_graph.graph_index import GraphView, run_graph
from kdedge_export.onnx_graph.graph_input import example_feed, image_port
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.model import refuse_bundle
from kdedge_runtime.onnx_session import first_line

__all__ = ["load_file", "unread_inputs"]

_OLDEST_OPSET = 7
"""The first that onnxruntime promises to run."""
_OPSET_OF_MAPS = 9
"""The first that has the operators a map is made of (Where, OneHot); older files are converted to it in memory."""
_CONVERTED_TOLERANCE = 1e-5
"""Largest difference of a converted graph's outputs, relative to their range."""
_OVERRIDABLE_SINCE_IR = 4
"""The version of the format since which an initializer of an input's name is a default rather than a constant."""
_LARGEST_BYTES = 2_000_000_000
"""Of a file with its weights inside; protobuf takes 2 GiB."""


def load_file(path: Path) -> onnx.ModelProto:
    """Read a model with its weights inside, its functions inlined, and no inputs but those that it reads.

    Opsets 7 and 8 are converted to 9, and both graphs are run on random pictures.

    Raises:
        ModelFileError: it is missing, damaged, too old or too large; or its weights are not beside it.
    """
    if not path.is_file():
        raise ModelFileError(f"There is no model file {path}. Expected an .onnx file with a classifier.")
    refuse_bundle(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own types, without a common base
        raise ModelFileError(f"{path} is not an ONNX model: {error}. Export or copy it again.") from error
    outside = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    missing = sorted(name for name in outside if not (path.parent / name).is_file())
    if missing:
        raise ModelFileError(
            f"{path} keeps its weights in {', '.join(missing)}, which is not beside it. Copy that file too."
        )
    if path.stat().st_size + sum((path.parent / name).stat().st_size for name in outside) > _LARGEST_BYTES:
        raise ModelFileError(f"{path} has more than 2 GB of weights, which one .onnx file cannot hold.")
    model = onnx.load(path)
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if not model.graph.node:
        raise ModelFileError(f"{path} has no operators. Expected an .onnx file with a classifier.")
    if opset < _OLDEST_OPSET:
        raise ModelFileError(
            f"{path} is written in opset {opset}; onnxruntime runs {_OLDEST_OPSET} and later. Export the model again."
        )
    if model.functions:
        model = inliner.inline_local_functions(model)
    useless = set(unread_inputs(model))
    if model.ir_version < _OVERRIDABLE_SINCE_IR:
        useless |= {tensor.name for tensor in model.graph.initializer}
        model.ir_version = _OVERRIDABLE_SINCE_IR
    kept = [value for value in model.graph.input if value.name not in useless]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model if opset >= _OPSET_OF_MAPS else _converted(model, path, opset)


def _converted(model: onnx.ModelProto, path: Path, opset: int) -> onnx.ModelProto:
    """The same graph in the first opset that maps can be written in; both are run on pictures."""
    try:
        newer = version_converter.convert_version(model, _OPSET_OF_MAPS)
    except Exception as error:  # the converter raises RuntimeError and its own types
        raise ModelFileError(
            f"{path} is written in opset {opset} and cannot be converted to {_OPSET_OF_MAPS}: {first_line(error)} "
            "Export the model again in a later opset."
        ) from error
    names = [value.name for value in model.graph.output]
    feed = example_feed(image_port(GraphView(model), str(path)), None)
    before, after = (run_graph(graph, names, feed, str(path)) for graph in (model, newer))
    for name in names:
        expected, got = before[name].astype(np.float64), after[name].astype(np.float64)
        reach = max(float(np.ptp(expected)), 1e-12) if expected.size else 1.0
        if got.shape != expected.shape or not np.abs(got - expected).max(initial=0) <= _CONVERTED_TOLERANCE * reach:
            raise ModelFileError(
                f"{path} is written in opset {opset}, and gives another {name} when it is converted to "
                f"{_OPSET_OF_MAPS}. Export the model again in a later opset."
            )
    return newer


def unread_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Inputs without a default that nothing reads, such as constants that tf2onnx folded into others.

    onnxruntime asks for a value of each all the same.
    """
    view = GraphView(model)
    read = view.takers.keys() | {value.name for value in model.graph.output}
    return tuple(name for name in view.inputs if name not in read)

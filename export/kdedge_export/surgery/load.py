"""Read somebody else's `.onnx` file into a form that can be operated on."""

from pathlib import Path

import onnx
from onnx import inliner

from kdedge_export.surgery.view import GraphView
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.model import refuse_bundle

__all__ = ["load_file", "unread_inputs"]

OLDEST_OPSET = 9
"""The first that has the operators a map is made of (Where, OneHot)."""
_OVERRIDABLE_SINCE_IR = 4
"""The version of the format since which an initializer of an input's name is a default rather than a constant."""
_LARGEST_BYTES = 2_000_000_000
"""Of a file with its weights inside; protobuf takes 2 GiB."""


def load_file(path: Path) -> onnx.ModelProto:
    """A model with its weights inside and its functions inlined, whose inputs are none but those that it reads.

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
    if not model.graph.node or opset < OLDEST_OPSET:
        raise ModelFileError(
            f"{path} is written in opset {opset}, which is too old to be explained; {OLDEST_OPSET} or later is needed. "
            "Export it again, or convert it: onnx.version_converter.convert_version(onnx.load(FILE), 13)."
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
    return model


def unread_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Inputs without a default that nothing reads, such as constants that tf2onnx folded into others.

    onnxruntime asks for a value of each all the same.
    """
    view = GraphView(model)
    read = view.takers.keys() | {value.name for value in model.graph.output}
    return tuple(name for name in view.inputs if name not in read)

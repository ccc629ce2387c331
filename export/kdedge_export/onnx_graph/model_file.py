"""Model file: a graph with the defaults of its optional inputs and its metadata, written atomically."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kdedge_export.onnx_graph.prototypes import allow_other_prototypes, has_prototypes
from kdedge_runtime import __version__
from kdedge_runtime.diagnostics.reference_frames import record_reference_frames
from kdedge_runtime.metadata import TOP_CLASS, Metadata
from kdedge_runtime.util.files import atomic_path

__all__ = ["save_model"]


def save_model(model: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    """Write a model file with its reference frames.

    This is the last step of an export: quantizers drop metadata, and a default value (an initializer with the name of
    an input) confuses them.
    """
    finished = onnx.ModelProto()
    finished.CopyFrom(model)
    finished.producer_name, finished.producer_version = "kdedge", __version__
    if any(value.name == "class_index" for value in finished.graph.input):
        default = numpy_helper.from_array(np.array([TOP_CLASS], dtype=np.int64), "class_index")
        finished.graph.initializer.append(default)
    if has_prototypes(finished):
        allow_other_prototypes(finished)
    helper.set_model_props(finished, metadata.to_props())
    onnx.checker.check_model(finished)
    with atomic_path(path) as temporary:
        onnx.save_model(finished, temporary)
        helper.set_model_props(
            finished, replace(metadata, reference_frames=record_reference_frames(temporary)).to_props()
        )
        onnx.save_model(finished, temporary)

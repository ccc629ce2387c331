"""Comparison of a graph's maps with PyTorch's, and modified graphs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from small_nets import CLASSES

from kdedge_export.torch_export import ExportableModel
from kdedge_export.validation import Models, ValidationSet, validate
from kdedge_export.validation.check import Check
from kdedge_runtime import Model

LABELS = tuple(map(str, range(CLASSES)))
Draw = Callable[[int, int], np.ndarray]


def map_check(module: ExportableModel, model: Model, image: np.ndarray) -> Check:
    report, _ = validate(Models(module, model), ValidationSet(image, LABELS), quick=True)
    (check,) = [check for check in report.checks if check.key == "fp32_map_error"]
    return check


def changed(model: Model, change: Callable[[onnx.ModelProto], None], folder: Path) -> Model:
    graph = onnx.load(model.path)
    change(graph)
    onnx.save(graph, folder / "changed.onnx")
    return Model.load(folder / "changed.onnx", threads=1)

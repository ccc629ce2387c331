"""Weights and graphs of exported runs, to change them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import save_file

from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge_export.torch_export import save_model
from kdedge_runtime import Model


def graph_of(path: Path) -> onnx.ModelProto:
    """Return the graph as before saving, without its default class index."""
    model = onnx.load(path)
    (default,) = (tensor for tensor in model.graph.initializer if tensor.name == "class_index")
    model.graph.initializer.remove(default)
    return model


def change_lineage(path: Path, target: Path, **changes: Any) -> None:
    """Rewrite a model file with a changed lineage."""
    metadata = Model.load(path).metadata
    save_model(graph_of(path), replace(metadata, lineage=metadata.lineage | changes), target)


def saved_weights(name: str, classes: int, path: Path) -> Path:
    torch.manual_seed(0)
    save_file(build_model(ModelSpec(name, classes, fresh_stem=False), 224).state_dict(), path)
    return path

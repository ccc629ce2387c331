"""Export of each network once in a test run."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from kdedge_export.torch_export import ClassifierOnly, ExportableModel, ExportedGraph

Deployed = ExportableModel | ClassifierOnly
_PACKAGES = {"kdedge", "kdedge_export", "torch", "torchvision", "timm"}
"""Packages whose layers have the same code throughout the run."""
_SETTINGS = (bool, int, float, str, torch.dtype, type(None))
_PLAIN = vars(nn.Module())
"""Attributes of every layer. A layer that adds an attribute of another type is exported each time."""


def exported_once(export_graph: Callable[[Deployed], ExportedGraph]) -> Callable[[Deployed], ExportedGraph]:
    """Return a function that exports as `export_graph`, and takes a copy of the graph of an equal network.

    Equal networks have the same layers with the same settings and weights, and the same input and map. Networks with
    layers that are defined in a test are always exported.
    """
    graphs: dict[str, ExportedGraph] = {}

    def export(module: Deployed) -> ExportedGraph:
        if (key := _content(module)) is None:
            return export_graph(module)
        if key not in graphs:
            graphs[key] = export_graph(module)
        return replace(graphs[key], model=copy.deepcopy(graphs[key].model))  # callers edit the graph

    return export


def _content(module: Deployed) -> str | None:
    """Return a hash of all that determines the graph; None with layers that are defined or changed in a test."""
    model = module.model if isinstance(module, ClassifierOnly) else module.explained.model
    layers = dict(model.named_modules())
    stores = (store for layer in layers.values() for key, store in vars(layer).items() if key.endswith("_hooks"))
    hooks = (hook for store in stores for hook in store.values())
    code = {type(layer).__module__ for layer in layers.values()} | {hook.__module__ for hook in hooks}
    if not {module.partition(".")[0] for module in code} <= _PACKAGES:
        return None
    hashed = hashlib.sha256(repr((type(module), module.spec, module.outputs, model)).encode())
    for path, layer in layers.items():
        settings = {key: value for key, value in vars(layer).items() if key not in _PLAIN}
        if not all(map(_is_setting, settings.values())):
            return None
        hashed.update(repr((path, type(layer), sorted(settings.items()))).encode())
    for path, weight in (*model.named_parameters(), *model.named_buffers()):
        bits = weight.detach().cpu().reshape(-1).view(torch.uint8)
        hashed.update(f"{path} {weight.dtype} {tuple(weight.shape)}".encode() + bits.numpy().tobytes())
    return hashed.hexdigest()


def _is_setting(value: object) -> bool:
    """Return True if the text of a value determines it."""
    return all(map(_is_setting, value)) if isinstance(value, list | tuple) else isinstance(value, _SETTINGS)

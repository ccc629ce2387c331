"""Export of each network once in a test run."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from kdedge_export.torch_export import ClassifierOnly, ExportableModel, ExportedGraph

Deployed = ExportableModel | ClassifierOnly
_PACKAGES = {"kdedge", "kdedge_export", "torch", "torchvision", "timm", "open_clip"}
"""Packages whose layers have the same code throughout the run."""
_SETTINGS = (bool, int, float, str, torch.dtype, type(None))
_PLAIN = vars(nn.Module())
"""Attributes of every layer. A layer that adds an attribute of another type is exported each time."""


class GraphFolder:
    """Folder with graphs by key, shared by all processes of a test run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder

    @classmethod
    def of_run(cls, factory: pytest.TempPathFactory) -> "GraphFolder":
        """Open the folder of this run, which starts empty."""
        base = factory.getbasetemp()
        is_worker = "PYTEST_XDIST_WORKER" in os.environ
        return cls((base.parent if is_worker else base) / "graphs")

    def get(self, key: str, export: Callable[[], ExportedGraph]) -> ExportedGraph:
        """Return a copy of the graph of this key, which is exported if it is not stored."""
        path = self._folder / hashlib.sha256(key.encode()).hexdigest()
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            graph = export()
            content = pickle.dumps((graph.model.SerializeToString(), graph.head_nodes))
            partial = path.with_name(f"{path.name}.{os.getpid()}")
            partial.write_bytes(content)
            partial.replace(path)  # another process may read it
        model, head_nodes = pickle.loads(content)
        return ExportedGraph(onnx.load_from_string(model), head_nodes)


def exported_once(
    export_graph: Callable[[Deployed], ExportedGraph], graphs: GraphFolder
) -> Callable[[Deployed], ExportedGraph]:
    """Return a function that exports as `export_graph`, and takes a copy of the graph of an equal network.

    Equal networks have the same layers with the same settings and weights, and the same input and map. Networks with
    layers that are defined in a test are always exported.
    """

    def export(module: Deployed) -> ExportedGraph:
        key = _content(module)
        return export_graph(module) if key is None else graphs.get(key, lambda: export_graph(module))

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
    if isinstance(value, dict):
        return all(map(_is_setting, (*value, *value.values())))
    return all(map(_is_setting, value)) if isinstance(value, list | tuple) else isinstance(value, _SETTINGS)

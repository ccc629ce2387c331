"""Export of each network once in a test run."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace

from kdedge_export.torch_export import ClassifierOnly, ExportableModel, ExportedGraph

Deployed = ExportableModel | ClassifierOnly
_PACKAGES = {"kdedge", "kdedge_export", "torch", "torchvision", "timm"}
"""Packages whose layers have the same code throughout the run."""
_SETTINGS = (bool, int, float, str, tuple, type(None))


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
    """Return a hash of all that determines the graph; None with layers that are defined in a test."""
    model = module.model if isinstance(module, ClassifierOnly) else module.explained.model
    layers = dict(model.named_modules())
    if not {type(layer).__module__.partition(".")[0] for layer in layers.values()} <= _PACKAGES:
        return None
    hashed = hashlib.sha256(repr((type(module), module.spec, module.outputs, model)).encode())
    for path, layer in layers.items():
        settings = {key: value for key, value in vars(layer).items() if isinstance(value, _SETTINGS)}
        settings.pop("training")  # exported in evaluation mode
        hashed.update(repr((path, type(layer), sorted(settings.items()))).encode())
    for path, weight in (*model.named_parameters(), *model.named_buffers()):
        hashed.update(path.encode() + weight.detach().numpy().tobytes())
    return hashed.hexdigest()

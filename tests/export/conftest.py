"""Exported graphs shared by several test modules, since an export takes seconds."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from export_cache import GraphFolder
from small_nets import CLASSES, NETS, SIDE, SPEC, TAILS, Export, randomised

from kdedge_export.torch_export import ClassifierOnly, export_graph, save_model, wrap_for_export
from kdedge_runtime import Metadata, Model

LABELS = tuple(f"class {index}" for index in range(CLASSES))


@pytest.fixture(scope="session", autouse=True)
def quick_exports(operators_listed_once: None) -> None:
    """Cache operators for all exported networks."""


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> GraphFolder:
    """Exported graphs of this run, by a key that names the network."""
    return GraphFolder.of_run(tmp_path_factory)


@pytest.fixture(scope="session")
def export(graphs: GraphFolder, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Export]:
    """Export one of `NETS` or `TAILS` once, or `plain`: the linear one without its map."""
    folder, made = tmp_path_factory.mktemp("exports"), {}

    def once(name: str) -> Export:
        if name not in made:
            torch.manual_seed(0)
            model = randomised((NETS | TAILS)["linear" if name == "plain" else name]())
            module = ClassifierOnly(model, SPEC) if name == "plain" else wrap_for_export(model, SPEC, "hirescam")
            graph = graphs.get(f"small_nets: {name}", lambda: export_graph(module))
            metadata = Metadata(LABELS, SPEC, module.outputs, lineage={"student": "Grüße"}, temperature=1.5)
            path = folder / f"{name}.onnx"
            save_model(graph.model, metadata, path)
            made[name] = Export(module, graph, metadata, Model.load(path, threads=1))
        return made[name]

    return once


@pytest.fixture(scope="session")
def pictures() -> Callable[[int, int], np.ndarray]:
    """Draw images with structure at several scales, uint8 `[n, SIDE, SIDE, 3]`, by number and seed."""

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        coarse = rng.normal(0, 60, (n, 4, 4, 3)).repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)
        shade = rng.normal(120, 40, (n, 1, 1, 3))
        return np.clip(shade + coarse + rng.normal(0, 20, (n, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def own_paths() -> tuple[bytes, ...]:
    """Paths that identify the exporting machine: home, checkout, interpreter, temporary folder."""
    places = (Path.home(), Path(__file__).parents[2], Path(sys.prefix), Path(tempfile.gettempdir()))
    return tuple(str(place).encode() for place in places if place != Path(place.anchor))

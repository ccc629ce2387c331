"""Dense weights in int8, shared by logits and contributions."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.session import open_session
from kdedge_export.quantization import weight_storage
from kdedge_export.torch_export import ExportedGraph, export_graph, wrap_for_export
from kdedge_runtime.modalities.table_column import TableColumn
from kdedge_runtime.modalities.tabular import TabularInput

SPEC = TabularInput(
    tuple(TableColumn(f"c{at}", "numeric", edges=(-1.0, 0.0, 1.0), reference=(0.4, 0.6)) for at in range(6))
)


@pytest.fixture(scope="module")
def graph() -> ExportedGraph:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 2))
    return export_graph(wrap_for_export(model, SPEC))


def run(model: onnx.ModelProto, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = open_session(model, exact_sums=True).run(
        ["logits", "saliency_map"], {"tabular": rows, "class_index": np.array([1])}
    )
    return found[0], found[1]


def test_stored_weights_are_small_and_close(graph: ExportedGraph) -> None:
    stored = weight_storage.store_int8_weights(graph.model, 127)
    onnx.checker.check_model(stored)
    kinds = {each.name: each.data_type for each in stored.graph.initializer if len(each.dims) == 2}
    int8 = [name for name, kind in kinds.items() if kind == onnx.TensorProto.INT8]
    assert len(int8) == 2, "the last layer is too small"
    assert stored.ByteSize() < graph.model.ByteSize() - 2 * (12 * 40 + 40 * 16)
    rows = modality_of(SPEC).random_samples(SPEC, 200, np.random.default_rng(0))
    (ours, maps), (theirs, other_maps) = run(graph.model, rows), run(stored, rows)
    assert 0 < np.abs(ours - theirs).max() < 0.05 * np.ptp(ours)
    assert np.corrcoef(maps.ravel(), other_maps.ravel())[0, 1] > 0.999


def test_contributions_still_add_up(graph: ExportedGraph) -> None:
    """Also those of the reference, which the exporter must not fold into constants of the float weights."""
    stored = weight_storage.store_int8_weights(graph.model, 127)
    rows = modality_of(SPEC).random_samples(SPEC, 100, np.random.default_rng(1))
    logits, maps = run(stored, rows)
    zero, _ = run(stored, np.full((1, 6), np.inf, np.float32))
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), logits[:, 1] - zero[0, 1], rtol=1e-4, atol=1e-5)


def test_original_graph_is_unchanged(graph: ExportedGraph) -> None:
    before = graph.model.SerializeToString(deterministic=True)
    weight_storage.store_int8_weights(graph.model, 127)
    assert graph.model.SerializeToString(deterministic=True) == before

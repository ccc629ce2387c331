"""A front end with weights stays in fp32 in every precision."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto
from torch import nn

from kdedge.modalities.audio_defaults import make_audio_input
from kdedge_export.modalities.rendered_sounds import render_sounds
from kdedge_export.onnx_graph.front_end_nodes import front_end_nodes
from kdedge_export.onnx_graph.session import make_feed, open_session
from kdedge_export.quantization import quantizable_layers
from kdedge_export.quantization.half_precision import FP16
from kdedge_export.quantization.mixed_precision import FidelityGoal
from kdedge_export.quantization.precision_recipe import ConversionInputs
from kdedge_export.quantization.prepare import prepare_graph
from kdedge_export.quantization.recipe import QuantizationRecipe
from kdedge_export.torch_export import ExportedGraph, export_graph, wrap_for_export
from kdedge_runtime.util.progress import no_progress

SPEC = replace(make_audio_input(16_000, 0.5), mean=-8.0, std=2.0)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(inputs, 8, 3, 2, 1) for inputs in (3, 8))
        self.linear = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x).relu()).relu()
        logits: torch.Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


@pytest.fixture(scope="module")
def graph(operators_listed_once: None) -> ExportedGraph:
    torch.manual_seed(0)
    return export_graph(wrap_for_export(Network(), SPEC))


def test_layers_begin_behind_the_logarithm(graph: ExportedGraph) -> None:
    rewritten = prepare_graph(graph, bytes_in=True)
    assert [layer.name for layer in quantizable_layers.layers_of(rewritten)] == ["first", "second"]
    kept = {node.name: node.op_type for node in rewritten.model.graph if node.name in rewritten.always_float}
    assert list(kept.values()).count("Conv") == 2 and "Log" in kept.values()


def test_fp16_file_has_exact_features(graph: ExportedGraph) -> None:
    names = front_end_nodes(ir.from_proto(graph.model).graph)
    inputs = ConversionInputs(graph, SPEC, None, QuantizationRecipe(), FidelityGoal(), no_progress)
    model = FP16.convert(inputs).model
    large = [each for each in model.graph.initializer if "front_end." in each.name and np.prod(each.dims) > 1 << 16]
    assert len(names) > 5 and [each.data_type for each in large] == [TensorProto.FLOAT]
    sounds = render_sounds(SPEC, 3, np.random.default_rng(0))
    values = []
    for proto in (graph.model, model):
        probed = onnx.ModelProto()
        probed.CopyFrom(proto)
        (log,) = (node.output[0] for node in proto.graph.node if node.op_type == "Log")
        probed.graph.output.append(onnx.ValueInfoProto(name=log))
        session = open_session(probed, exact_sums=True)
        values.append(session.run([log], make_feed(session, sounds))[0])
    assert np.array_equal(*values)

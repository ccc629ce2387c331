"""Export of the deployed module to an ONNX graph with a dynamic batch size."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.fx import config as fx_config
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from kdedge_export.errors import GraphNotSupported
from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.edits import to_proto
from kdedge_export.onnx_graph.head_nodes import downstream, last_layer_and_map
from kdedge_export.onnx_graph.prototypes import store_prototypes
from kdedge_export.saliency import CosineLayer, find_cosine_layer
from kdedge_export.saliency.cosine_layer import normalized
from kdedge_export.torch_export.autograd_trace import trace_with_gradients
from kdedge_export.torch_export.export_errors import translate_export_errors
from kdedge_export.torch_export.wrappers import ClassifierOnly, ExportableModel
from kdedge_runtime.embedding import EMBEDDING, PROTOTYPES
from kdedge_runtime.metadata import TOP_CLASS

__all__ = ["ExportedGraph", "export_graph"]

OUTPUTS = ("logits", "saliency_map", "explained_class")
_ACTIVATIONS = "target_activations"


@dataclass(frozen=True)
class ExportedGraph:
    """Exported graph in memory, before quantization and metadata."""

    model: onnx.ModelProto
    head_nodes: frozenset[str]
    """Names of the nodes that quantization keeps in fp32.

    For a closed-form head these are all nodes between the target layer's activations and the outputs, or all nodes
    without a target layer; otherwise the last layer and all nodes of the map.
    """


class _WithActivations(nn.Module):
    """Module with the target activations as an additional output, to locate them in the ONNX graph."""

    def __init__(self, deployed: ExportableModel) -> None:
        super().__init__()
        self.deployed = deployed

    def forward(self, sample: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits, saliency_map, explained_class, (activations, *_) = self.deployed.with_attribution_inputs(
            sample, class_index
        )
        return logits, saliency_map, explained_class, activations


class _WithPrototypes(nn.Module):
    """Module that takes the prototypes of its cosine layer, and also returns the normalized embeddings."""

    def __init__(self, module: nn.Module, layer: CosineLayer) -> None:
        super().__init__()
        self.module = module
        (path,) = (path for path, each in module.named_modules() if each is layer)
        self._buffer, self._path = f"{path}.prototypes", path

    def forward(self, sample: Tensor, class_index: Tensor, prototypes: Tensor) -> tuple[Tensor, ...]:
        caught: list[Tensor] = []
        layer = self.module.get_submodule(self._path)
        handle = layer.register_forward_pre_hook(lambda _layer, args: caught.append(args[0]))
        try:
            outputs = torch.func.functional_call(self.module, {self._buffer: prototypes}, (sample, class_index))
        finally:
            handle.remove()
        return (*outputs[: len(OUTPUTS)], normalized(caught[0]), *outputs[len(OUTPUTS) :])


def export_graph(module: ExportableModel | ClassifierOnly) -> ExportedGraph:
    """Export a deployed model: the input of its specification with a dynamic batch, and named outputs.

    Args:
        module: `ExportableModel` returns `logits`, `saliency_map` and `explained_class`, and takes `class_index` int64
            `[1]`. With a cosine layer it also returns `embedding`, and its prototypes are the initializer `prototypes`.
            `ClassifierOnly` returns `logits` only.

    Raises:
        GraphNotSupported: PyTorch cannot export the model, or the derivative for its map, as a graph.
    """
    model = module.model if isinstance(module, ClassifierOnly) else module.explained.model
    with translate_export_errors(model), _quiet(), _without_source_lines():
        exported = _exported(module)
    if fixed := exported.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
        raise GraphNotSupported(
            f"{type(model).__name__} cannot be exported: its code converts the batch size to a Python number, so the "
            f"graph would accept only {fixed} samples at a time. Write x.shape[0] or -1 instead of len(x)."
        )
    return exported


def _exported(module: ExportableModel | ClassifierOnly) -> ExportedGraph:
    spec = module.spec
    # A batch of one would be exported as a constant.
    samples = torch.from_numpy(modality_of(spec).random_samples(spec, 2, np.random.default_rng(0)))
    batch = {0: torch.export.Dim("batch")}
    if isinstance(module, ClassifierOnly):
        model = _to_onnx(module, {spec.name: samples}, [OUTPUTS[0]], (batch,))
        return ExportedGraph(model, last_layer_and_map(model.graph, OUTPUTS[0]))
    inputs, outputs = {spec.name: samples, "class_index": torch.tensor([TOP_CLASS])}, list(OUTPUTS)
    dynamic: tuple[Any, ...] = (batch, None)
    explained = module.cpu().eval().explained
    is_closed = explained.is_closed_form
    traced: nn.Module = _WithActivations(module) if is_closed else module
    layer = find_cosine_layer(explained.model)
    if layer is not None:
        traced = _WithPrototypes(traced, layer)
        inputs[PROTOTYPES] = layer.prototypes.repeat(2, 1)  # a single one would be exported as a constant
        outputs.append(EMBEDDING)
        dynamic = (*dynamic, {0: torch.export.Dim("prototypes")})
    if is_closed:
        model = _to_onnx(traced, inputs, [*outputs, _ACTIVATIONS], dynamic)
        # Without a target layer the map needs all activations, also those of the reference.
        is_all_map = explained.target_layer is None
        head_nodes = (
            frozenset(node.name for node in model.graph.node) if is_all_map else downstream(model.graph, _ACTIVATIONS)
        )
        del model.graph.output[len(outputs)]
    else:
        with _MeanForGlobalPooling(), torch.no_grad():
            graph = trace_with_gradients(traced, module, *inputs.values())
        model = _to_onnx(graph, inputs, outputs, dynamic)
        head_nodes = last_layer_and_map(model.graph, OUTPUTS[0])
    if layer is not None:
        store_prototypes(model, layer.prototypes.numpy())
    return ExportedGraph(model, head_nodes)


def _to_onnx(
    module: nn.Module, inputs: dict[str, Tensor], output_names: list[str], dynamic_shapes: tuple[Any, ...]
) -> onnx.ModelProto:
    with _MeanForGlobalPooling(), torch.no_grad():
        program = torch.onnx.export(
            module.cpu().eval(),
            tuple(inputs.values()),
            dynamo=True,
            external_data=False,
            input_names=list(inputs),
            output_names=output_names,
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    assert program is not None
    _strip(program.model)
    return to_proto(program.model)


class _MeanForGlobalPooling(TorchFunctionMode):
    """Replace global pooling by a mean; PyTorch's own decomposition leaves a reshape and a gather."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.adaptive_avg_pool2d and (args[1:] or tuple(kwargs.values()))[0] in (1, (1, 1), [1, 1]):
            return args[0].mean((-2, -1), keepdim=True)
        return func(*args, **kwargs)


def _strip(model: ir.Model) -> None:
    """Remove the exporter's annotations, which contain source lines and local paths."""
    ClearMetadataAndDocStringPass()(model)
    model.graph.name = "kdedge"
    for part in (model, *ir.convenience.create_value_mapping(model.graph).values()):
        part.metadata_props.clear()
        part.doc_string = None


@contextlib.contextmanager
def _without_source_lines() -> Iterator[None]:
    """Record no stack for each node, which takes a seventh of a vision transformer's export; `_strip` removes them."""
    before = getattr(fx_config, "do_not_emit_stack_traces", False)  # older versions of PyTorch ignore it
    fx_config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx_config.do_not_emit_stack_traces = before


class _Unwritten:
    """Stream that discards its output, such as the partial graph of a rejected network.

    All other attributes are those of the wrapped stream, so that progress bars find its terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's progress output and developer warnings."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)  # the exporter's loggers; errors are raised as well
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(_Unwritten(sys.stderr)),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

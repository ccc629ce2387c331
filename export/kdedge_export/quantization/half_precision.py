"""Conversion of a graph's body to float16; the last layer and the map are computed in float32.

The conversion is onnxruntime's `convert_float_to_float16`. It returns float16 between any two nodes, including those
that stay in float32. Such round trips are removed again, since they would round logits and maps.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common as ir_passes
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.edits import to_proto
from kdedge_export.onnx_graph.front_end_nodes import front_end_nodes, is_front_end_weight
from kdedge_export.onnx_graph.node_attributes import WEIGHTED, attributes
from kdedge_export.onnx_graph.session import latency_note, make_feed, open_session
from kdedge_export.quantization.calibration_ranges import values_of
from kdedge_export.quantization.precision_recipe import (
    ConversionInputs,
    ConvertedGraph,
    FidelityBounds,
    PrecisionRecipe,
)
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.onnx_session import first_line

__all__ = ["FP16"]

_LARGEST = float(np.finfo(np.float16).max)
_HEADROOM = 4
"""Nodes stay in float32 if a value exceeds 1 / 4 of the largest float16, since other samples may have larger values."""
_FRAMES = 4
"""Number of reference samples, and of random ones."""
_SUMS = (
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
    "ReduceL2",
    "GlobalAveragePool",
    "Softmax",
    "LogSoftmax",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
)
"""Operators that sum many values or square them. Some kernels sum in float16, which overflows although the result fits.
PyTorch's autocast keeps sums, softmax and normalization in float32, too."""
_STORED_AS_HALF = 65_536
"""Minimum number of weights for storing a layer as float16 although it is computed in float32."""


def _convert(inputs: ConversionInputs) -> ConvertedGraph:
    """Convert a graph, and run the result on samples.

    Raises:
        ModelFileError: nothing can be converted, or the converted graph does not run or overflows.
    """
    inputs.progress("converting to fp16", 0, 1)
    samples = _samples(inputs)
    graph = _without_constant_nodes(inputs.graph.model)
    exact = inputs.graph.head_nodes | front_end_nodes(ir.from_proto(graph).graph)
    overflowing = _overflowing(graph, exact, samples)
    kept = exact | overflowing
    layers = [node.name for node in graph.graph.node if node.op_type in WEIGHTED]
    if exact.issuperset(layers):
        raise ModelFileError(
            "No layer can be converted to fp16: there is none before the last layer, which stays in fp32. Use the fp32 "
            "file."
        )
    if kept.issuperset(layers):
        raise ModelFileError(
            f"No layer can be converted to fp16: the values of {len(overflowing)} nodes exceed "
            f"{_LARGEST / _HEADROOM:g}. Use the fp32 file, or --quantize."
        )
    model = _converted(graph, kept)
    _store_as_half(model.graph)
    _require_finite(model, samples)
    latency_ms = latency_note({"fp32": inputs.graph.model, "fp16": model}, samples[:1])
    inputs.progress("converting to fp16", 1, 1)
    note = {
        "format": "float16",
        "weights": "fp16",
        "calibration_samples": 0 if inputs.samples is None else len(inputs.samples.calibration),
        "float_layers": [node.name for node in graph.graph.node if node.name in overflowing],
        "latency_ms": latency_ms,
    }
    return ConvertedGraph(model, note)


FP16 = PrecisionRecipe(
    "fp16",
    _convert,
    # float16 rounds by 2^-11, int8 by 2^-8 of a tensor's range: errors are about a tenth. Bounds on a mean that unseen
    # samples could break (accuracy, mean correlation) equal those of int8, since a tighter one would need more samples
    # to be shown, not a better file. The others are a tenth, or as close to 1.
    FidelityBounds(
        accuracy_drop_points=1.0,
        agreement=0.98,
        divergence=0.01,
        logits_distance=0.015,
        map_pearson_mean=0.98,
        map_pearson_p5=0.99,
        map_scale_error=0.02,
        other_map_pearson=0.99,
    ),
)


def _samples(inputs: ConversionInputs) -> Sample:
    """Return reference samples, samples that cover the range of the input, and the calibration samples if given."""
    spec = inputs.spec
    reference = np.stack([spec.reference_sample(seed) for seed in range(_FRAMES)])
    drawn = modality_of(spec).random_samples(spec, _FRAMES, np.random.default_rng(0))
    return np.concatenate([reference, drawn, *([] if inputs.samples is None else [inputs.samples.calibration])])


def _without_constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its constants as initializers; the converter does not convert every kind of node."""
    lifted = ir.from_proto(model)
    ir_passes.RemoveInitializersFromInputsPass()(lifted)
    ir_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(lifted)
    # The converter would take declared types of initializers, which to_proto omits, for those of float16 values.
    return to_proto(lifted)


def _overflowing(model: onnx.ModelProto, head: Collection[str], samples: Sample) -> frozenset[str]:
    """Return the names of the body's nodes with a weight, an input or an output that is too large for float16."""
    limit = _LARGEST / _HEADROOM
    constants = (tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT)
    # A weight has no headroom, since it does not depend on the sample.
    large = {each.name for each in constants if _reaches(numpy_helper.to_array(each), _LARGEST)}
    body = [node for node in model.graph.node if node.name not in head]
    tensors = [name for node in body for name in node.output if name]
    for values in values_of(model, tensors, samples, lambda _: None):
        large.update(name for name, value in values.items() if value.dtype == np.float32 and _reaches(value, limit))
    return frozenset(node.name for node in body if large.intersection([*node.input, *node.output]))


def _reaches(values: NDArray[Any], limit: float) -> bool:
    return not (np.abs(values) < limit).all()  # True for NaN


def _converted(model: onnx.ModelProto, kept: Collection[str]) -> onnx.ModelProto:
    """Convert all nodes except some, without round trips of float32 values through float16."""
    own = {node.name for node in model.graph.node}
    half = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_SUMS], node_block_list=list(kept)
    )
    del half.graph.value_info[:]  # the converter leaves outdated types
    casts = [node for node in half.graph.node if node.op_type == "Cast" and node.name not in own]
    exact = {node.output[0]: node.input[0] for node in casts if attributes(node)["to"] == TensorProto.FLOAT16}
    for node in casts:
        if node.input[0] in exact and attributes(node)["to"] == TensorProto.FLOAT:
            node.op_type, node.input[0] = "Identity", exact[node.input[0]]
            del node.attribute[:]
    cleaned = ir.from_proto(half)
    for step in (
        ir_passes.TopologicalSortPass(),
        ir_passes.IdentityEliminationPass(),
        ir_passes.RemoveUnusedNodesPass(),
    ):
        step(cleaned)
    return ir.to_proto(cleaned)


def _store_as_half(graph: onnx.GraphProto) -> None:
    """Store the large weights of the layers that stay in float32 as float16; they are cast when the file is loaded.

    Those of a front end keep their precision.
    """
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else np.empty(0)
        if values.size < _STORED_AS_HALF or _reaches(values, _LARGEST) or is_front_end_weight(tensor.name):
            continue
        stored = f"{tensor.name}_fp16"
        graph.node.insert(0, helper.make_node("Cast", [stored], [tensor.name], f"{stored}_cast", to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))


def _require_finite(model: onnx.ModelProto, samples: Sample) -> None:
    """Raise unless the graph runs on each sample, and on two at once if its batch is dynamic, with finite outputs."""
    try:
        session = open_session(model, exact_sums=True)
        (size,) = (each.shape[0] for each in session.get_inputs() if each.name != "class_index")
        batches = [samples[number : number + 1] for number in range(len(samples))]
        if not isinstance(size, int):
            batches.append(samples[:2])
        is_finite = all(
            np.isfinite(values).all() for batch in batches for values in session.run(None, make_feed(session, batch))
        )
    except Exception as error:  # onnxruntime's exceptions have no common public base class
        raise ModelFileError(
            f"The graph cannot be run in fp16: {first_line(error)} Use the fp32 file, or --quantize."
        ) from error
    if not is_finite:
        raise ModelFileError(
            f"The graph overflows in fp16: an output is not finite, although no value between the layers reaches "
            f"{_LARGEST:g}. Use the fp32 file, or --quantize."
        )

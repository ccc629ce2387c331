"""Output `familiarity` of a graph, computed from its pooled features or its logits."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from kdedge_export.familiarity.discriminant import Discriminant, fit_discriminant
from kdedge_export.familiarity.features import PooledFeatures, find_features
from kdedge_export.metrics.file_predictions import batches
from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex, TensorProbe
from kdedge_export.onnx_graph.prototypes import has_prototypes
from kdedge_runtime.familiarity import FAMILIARITY
from kdedge_runtime.metadata import TOP_CLASS
from kdedge_runtime.modalities import InputSpec, Sample
from kdedge_runtime.util.arrays import Targets

__all__ = ["COSINE", "ENERGY", "SIMILARITY", "add_familiarity_output"]

COSINE, ENERGY, SIMILARITY = "discriminant-cosine", "energy", "cosine"
"""Methods: cosine of discriminant features (see `discriminant`), and negative energy `log Σ exp(z)` of the logits
(Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020), which needs no training samples. Embedding
models have the largest similarity to a prototype."""
_LOGITS = "logits"
_BATCH = 32
_PROBED = 2
"""Samples whose run gives the shape of the features; more than one, to tell the batch axis."""


def add_familiarity_output(
    model: onnx.ModelProto, spec: InputSpec, training: Sample | None, targets: Targets | None
) -> tuple[str, frozenset[str]]:
    """Add the output `familiarity`, float32 `[N]`, to a graph with the output `logits`.

    Args:
        model: the graph, modified in place.
        spec: its input.
        training: training samples as the graph takes them; None or empty uses the energy of the logits.
        targets: their classes, int64 `[N]`; None takes the predicted classes.

    Returns:
        The method and the names of the added nodes.

    Raises:
        DataError: a feature of a training sample is not finite.
        ModelFileError: onnxruntime cannot run the graph.
    """
    view = GraphIndex(model)
    builder, features, discriminant = NodeBuilder(view), None, None
    if not has_prototypes(model) and training is not None and len(training):
        count = 1 if _has_single_batch(model, spec) else _PROBED
        probed = modality_of(spec).random_samples(spec, count, np.random.default_rng(0))
        features = find_features(view, builder, _LOGITS, _feed(view, spec, probed))
        if features is not None:
            discriminant = _fit(view, builder, features, spec, training, targets)
    if features is not None and discriminant is not None:
        method = COSINE
        _add_cosine(builder, features, discriminant)
    else:
        method, operator = (SIMILARITY, "ReduceMax") if has_prototypes(model) else (ENERGY, "ReduceLogSumExp")
        builder = NodeBuilder(view)  # without the nodes of unused features
        builder.reduce(operator, _LOGITS, [1], keepdims=False, name=FAMILIARITY)
    names = frozenset(node.name for node in builder.nodes)
    builder.write(model)
    (logits,) = (value for value in model.graph.output if value.name == _LOGITS)
    output = helper.make_tensor_value_info(FAMILIARITY, TensorProto.FLOAT, [None])
    output.type.tensor_type.shape.dim[0].CopyFrom(logits.type.tensor_type.shape.dim[0])
    model.graph.output.append(output)
    return method, names


def _add_cosine(builder: NodeBuilder, features: PooledFeatures, discriminant: Discriminant) -> None:
    constants = (discriminant.projection, discriminant.offset, discriminant.means)
    projection, offset, means = (builder.constant(each) for each in constants)
    projected = builder.add("Gemm", features.tensor, projection, offset)
    cosines = builder.add("MatMul", builder.add("LpNormalization", projected, axis=1, p=2), means)
    builder.reduce("ReduceMax", cosines, [1], keepdims=False, name=FAMILIARITY)


def _feed(view: GraphIndex, spec: InputSpec, samples: Sample) -> dict[str, Array]:
    """Return the inputs of a graph, which may have no default class index yet."""
    return {spec.name: samples} | {name: np.array([TOP_CLASS]) for name in view.inputs if name == "class_index"}


def _fit(
    view: GraphIndex,
    builder: NodeBuilder,
    features: PooledFeatures,
    spec: InputSpec,
    training: Sample,
    targets: Targets | None,
) -> Discriminant | None:
    probed = onnx.ModelProto()
    probed.CopyFrom(view.model)
    probed.graph.node.extend(builder.nodes)
    probed.graph.initializer.extend(builder.initializers)
    probe = TensorProbe(probed, [features.tensor, _LOGITS], "the graph")
    size = 1 if _has_single_batch(view.model, spec) else _BATCH
    found = [probe(_feed(view, spec, training[batch])) for batch in batches(np.arange(len(training)), size)]
    logits = np.concatenate([each[_LOGITS] for each in found])
    classes = logits.argmax(axis=1) if targets is None else targets
    return fit_discriminant(np.concatenate([each[features.tensor] for each in found]), classes)


def _has_single_batch(model: onnx.ModelProto, spec: InputSpec) -> bool:
    (own,) = (value for value in model.graph.input if value.name == spec.name)
    return bool(own.type.tensor_type.shape.dim[0].dim_value)

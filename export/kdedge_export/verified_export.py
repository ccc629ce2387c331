"""Export of a PyTorch classifier to a verified model file in one call."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdedge_export.export_check import check_against_torch
from kdedge_export.familiarity.enrollment_threshold import with_thresholds
from kdedge_export.familiarity.fitting import FamiliaritySamples
from kdedge_export.familiarity.graph import add_familiarity_output
from kdedge_export.metrics.map_displacement import measure_display
from kdedge_export.metrics.torch_predictions import at_once
from kdedge_export.modalities import modality_of
from kdedge_export.onnx_graph.model_file import save_model
from kdedge_export.saliency import find_cosine_layer
from kdedge_export.saliency.tracing import restoring
from kdedge_export.torch_export import ClassifierOnly, ExportableModel, ExportedGraph, export_graph, wrap_for_export
from kdedge_runtime import Metadata, Model
from kdedge_runtime.embedding import EMBEDDING, Embedding
from kdedge_runtime.errors import UsageError
from kdedge_runtime.familiarity import Familiarity
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.saliency_methods import NO_MAP
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.files import atomic_path

__all__ = ["ExportedFile", "export", "exportable"]

_DISPLAY_SAMPLES = 48
"""Samples on which the display of maps is measured; each is run once, and once per mirrored direction."""
Completion = Callable[[Model, Metadata], Metadata]
"""Function that returns the metadata with values measured on the verified file, such as a fitted temperature."""


@dataclass(frozen=True)
class ExportedFile:
    """Verified fp32 model file."""

    path: Path
    metadata: Metadata = field(repr=False)
    graph: ExportedGraph = field(repr=False)
    """Graph in memory, for quantization."""
    logits_error: float
    """Maximum error of the logits against PyTorch over two inputs, relative to their range."""
    map_error: float | None
    """Maximum error of the maps against PyTorch, relative to their range; None without a map."""


def export(
    module: nn.Module,
    input_spec: InputSpec,
    labels: Sequence[str],
    output: str | Path,
    *,
    method: str | None = None,
    target_layer: str | None = None,
    task: str = "classify",
    lineage: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    familiarity: FamiliaritySamples | None = None,
    complete: Completion | None = None,
) -> ExportedFile:
    """Export a classifier with its saliency map to one `.onnx` file, and verify the file against PyTorch.

    Both run on two batches of random samples, for the top-1 class and for other classes. The file is written only if
    logits and maps agree.

    Args:
        module: classifier, float32 `[N, C, H, W]` to logits `[N, K]`; modes and gradient flags are kept.
        input_spec: input specification; for images size, resizing rule and normalization.
        labels: K class names in the order of the logits.
        output: file to write, with suffix `.onnx`.
        method: saliency method, one of `kdedge_export.saliency.METHODS`, or `none`; None uses the head's default.
        target_layer: module path of the layer whose activations the map uses; None finds it automatically.
        task: interpretation of the logits, a key of `kdedge_runtime.tasks.TASKS`.
        lineage: origin of the weights for the metadata, as JSON values.
        metrics: metrics of the model for the metadata, as JSON values.
        familiarity: training samples for the statistics of familiarity, and validation samples for its threshold; None
            uses the energy of the logits, without a threshold.
        complete: adds values measured on the verified file to the metadata; see `Completion`.

    Raises:
        HeadNotSupported: the model does not support this method.
        GraphNotSupported: PyTorch cannot export the model as a graph.
        UsageError: the suffix is not `.onnx`, the labels do not fit the logits, the options are invalid, the task does
            not fit the network, or an embedding model is to have no map.
        DataError: the features of the training samples are not finite.
        KdedgeError: the exported graph does not match PyTorch, or rounding errors are too large to compare them.
    """
    output = Path(output)
    if output.suffix != ".onnx":
        raise UsageError(f"The model file must end in .onnx; got {output}.")
    if TASKS[task].has_embedding != (find_cosine_layer(module) is not None):
        raise UsageError(
            f"The task {task} does not fit {type(module).__name__}. Expected the task {EMBEDDING} for a network that "
            "ends in a CosineLayer, and only for such networks."
        )
    with restoring(module):  # training may go on
        wrapped = exportable(module, input_spec, method, target_layer)
        _require_labels(module, wrapped, labels)
        metadata = Metadata(
            labels=tuple(labels),
            input=input_spec,
            outputs=wrapped.outputs,
            task=task,
            embedding=describe_embedding(module),
            lineage=dict(lineage or {}),
            metrics=dict(metrics or {}),
        )
        try:
            return _write(wrapped, metadata, output, familiarity or FamiliaritySamples(), complete)
        finally:
            if isinstance(wrapped, ExportableModel):
                wrapped.explained.detach()


def _require_labels(module: nn.Module, wrapped: ExportableModel | ClassifierOnly, labels: Sequence[str]) -> None:
    example = modality_of(wrapped.spec).example(wrapped.spec).to(next(module.parameters()).device)
    with torch.no_grad():
        count = module(example).shape[1]
    if count != len(labels):
        raise UsageError(
            f"{type(module).__name__} has {count} logits, but there are {len(labels)} labels. Expected one label for "
            "each logit, in their order."
        )


def _write(
    wrapped: ExportableModel | ClassifierOnly,
    metadata: Metadata,
    output: Path,
    familiarity: FamiliaritySamples,
    complete: Completion | None,
) -> ExportedFile:
    graph, described = _with_familiarity(export_graph(wrapped), metadata, familiarity)
    metadata = replace(metadata, familiarity=described)
    with atomic_path(output) as temporary:  # a file that fails the check must not replace one that passed
        save_model(graph.model, metadata, temporary)
        model = Model.load(temporary)
        logits_error, map_error = check_against_torch(wrapped, model)
        metadata = with_thresholds(model, metadata, familiarity)
        finished = metadata if complete is None else complete(model, metadata)
        if model.has_map:
            modality = modality_of(metadata.input)
            samples = modality.display_samples(metadata.input, _DISPLAY_SAMPLES)
            display = measure_display(model, samples, modality.mirrored_axes, at_once=at_once(model))
            finished = replace(finished, outputs=replace(finished.outputs, display=display))
        save_model(graph.model, finished, temporary)
    return ExportedFile(output, finished, graph, logits_error, map_error)


def describe_embedding(module: nn.Module) -> Embedding | None:
    """Describe the embedding of a network with a cosine layer; None for other networks.

    The id is a hash of the weights without the prototypes, which enrolled classes replace.
    """
    layer = find_cosine_layer(module)
    if layer is None:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if value is not None and value.data_ptr() != layer.prototypes.data_ptr():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return Embedding(layer.prototypes.shape[1], digest.hexdigest()[:16])


def _with_familiarity(
    graph: ExportedGraph, metadata: Metadata, samples: FamiliaritySamples
) -> tuple[ExportedGraph, Familiarity | None]:
    """Add the output `familiarity` for a task with classes."""
    if not TASKS[metadata.task].has_classes:
        return graph, None
    method, added = add_familiarity_output(graph.model, metadata.input, samples.training, samples.targets)
    return replace(graph, head_nodes=graph.head_nodes | added), Familiarity(method)


def exportable(
    module: nn.Module, input_spec: InputSpec, method: str | None = None, target_layer: str | None = None
) -> ExportableModel | ClassifierOnly:
    """Wrap a classifier for export with its map, or for `method="none"` without one.

    Raises:
        HeadNotSupported: the model does not support this method.
        UsageError: a target layer is given without a map.
    """
    if method != NO_MAP:
        return wrap_for_export(module, input_spec, method, target_layer)
    if find_cosine_layer(module) is not None:
        raise UsageError("An embedding model is exported with the map of its similarities. Remove --method none.")
    if target_layer is not None:
        raise UsageError(f"--method none exports no saliency map. Remove --target-layer {target_layer}.")
    return ClassifierOnly(module.eval(), input_spec)

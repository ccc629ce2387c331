"""Familiarity of an existing model file, such as one made from a file of another framework."""

from dataclasses import replace
from pathlib import Path

import onnx
from onnx import helper

from kdedge_export.familiarity.fitting import FamiliaritySamples, with_threshold
from kdedge_export.familiarity.graph import add_familiarity_output
from kdedge_runtime import Metadata, Model
from kdedge_runtime.diagnostics.reference_frames import record_reference_frames
from kdedge_runtime.errors import UsageError
from kdedge_runtime.familiarity import FAMILIARITY, Familiarity
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.files import atomic_path

__all__ = ["add_familiarity", "without_familiarity"]


def add_familiarity(path: str | Path, samples: FamiliaritySamples) -> Metadata:
    """Add the output `familiarity` to a model file in any precision, or fit it again.

    The file is replaced. Its other outputs are unchanged.

    Args:
        path: model file with metadata.
        samples: training samples for the statistics, and known samples for the threshold.

    Returns:
        The new metadata.

    Raises:
        UsageError: the task of the file has no classes.
        ModelFileError: the file is damaged, or has no metadata.
        DataError: the features of the training samples are not finite.
    """
    path = Path(path)
    metadata = Model.load(path).metadata
    if not TASKS[metadata.task].has_classes:
        raise UsageError(f"{path} has the task {metadata.task}. Familiarity needs a task with classes.")
    model = without_familiarity(onnx.load(path))
    method, _ = add_familiarity_output(model, metadata.input, samples.training, samples.targets)
    props = {entry.key: entry.value for entry in model.metadata_props}
    with atomic_path(path) as temporary:

        def save(changed: Metadata) -> None:
            helper.set_model_props(model, props | changed.to_props())
            onnx.save_model(model, temporary)

        described = Familiarity(method)
        save(replace(metadata, familiarity=described, reference_frames=None))
        fitted = with_threshold(Model.load(temporary), described, samples)
        metadata = replace(metadata, familiarity=fitted, reference_frames=record_reference_frames(temporary))
        save(metadata)
    return metadata


def without_familiarity(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the output `familiarity` with the nodes and constants that lead to it only, and return the model."""
    graph = model.graph
    kept = [value for value in graph.output if value.name != FAMILIARITY]
    if len(kept) == len(graph.output):
        return model
    del graph.output[:]
    graph.output.extend(kept)
    only, needed = {FAMILIARITY}, {value.name for value in kept}
    nodes = []
    for node in reversed(graph.node):
        if only.intersection(node.output) and not needed.intersection(node.output):
            only.update(node.input)
        else:
            needed.update(node.input)
            nodes.append(node)
    nodes.reverse()
    constants = [tensor for tensor in graph.initializer if tensor.name in needed or tensor.name not in only]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    return model

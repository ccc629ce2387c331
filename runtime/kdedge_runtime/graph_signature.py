"""Check the inputs and outputs of a graph against the metadata of its file, before the first pass."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from kdedge_runtime.embedding import EMBEDDING, PROTOTYPES
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.familiarity import FAMILIARITY
from kdedge_runtime.metadata import MAX_POSITIONS, Metadata
from kdedge_runtime.saliency_methods import NO_MAP

__all__ = ["check_graph"]

_TYPE_NAMES = {"float32": "float", "float64": "double"}
"""onnxruntime's names of types that differ from numpy's."""


def check_graph(path: Path, session: ort.InferenceSession, metadata: Metadata) -> None:
    """Check the names, types and shapes of a graph's inputs and outputs.

    Args:
        path: path of the model file, for error messages.
        session: session of the graph.
        metadata: metadata of the file.

    Raises:
        ModelFileError: the graph does not match the metadata.
        UnicodeDecodeError: a name or symbolic dimension in the graph is not UTF-8.
    """
    # Inputs with a default value are listed apart from those without.
    inputs = {item.name: item for item in (*session.get_inputs(), *session.get_overridable_initializers())}
    outputs = {item.name: item for item in session.get_outputs()}
    spec, embedding = metadata.input, metadata.embedding
    needed = {"logits"} if metadata.outputs.method == NO_MAP else {"logits", "saliency_map", "explained_class"}
    needed |= set() if metadata.familiarity is None else {FAMILIARITY}
    needed |= set() if embedding is None else {EMBEDDING}
    faults = [f"no output {name}" for name in sorted(needed - outputs.keys())]
    if spec.name not in inputs:
        faults.append(f"no input {spec.name}")
    elif inputs[spec.name].type != _type_name(spec.dtype) or not _agrees(inputs[spec.name], spec.shape):
        faults.append(f"input {spec.name} of {inputs[spec.name].type} {inputs[spec.name].shape}")
    if "logits" in outputs and not _agrees(outputs["logits"], (len(metadata.labels),)):
        faults.append(f"logits {outputs['logits'].shape} for {len(metadata.labels)} labels")
    if "saliency_map" in outputs and not _is_map(outputs["saliency_map"].shape):
        faults.append(f"saliency_map {outputs['saliency_map'].shape}")
    expected = [f"{spec.dtype} input {spec.name} [N, {', '.join(map(str, spec.shape))}]"]
    if embedding is not None:
        faults += _embedding_faults(inputs.get(PROTOTYPES), outputs.get(EMBEDDING), embedding.size)
        expected.append(f"float32 input {PROTOTYPES} [M, {embedding.size}]")
    if faults:
        raise ModelFileError(
            f"{path} does not match its metadata: it has {', '.join(faults)}. Expected "
            f"{', '.join([*expected, *sorted(needed)])}. Export it again."
        )


def _embedding_faults(prototypes: ort.NodeArg | None, embedding: ort.NodeArg | None, size: int) -> list[str]:
    faults = []
    if prototypes is None:
        faults.append(f"no input {PROTOTYPES}")
    elif prototypes.type != _type_name(np.dtype(np.float32)) or not _agrees(prototypes, (size,)):
        faults.append(f"input {PROTOTYPES} of {prototypes.type} {prototypes.shape}")
    elif isinstance(prototypes.shape[0], int):
        faults.append(f"input {PROTOTYPES} for {prototypes.shape[0]} classes only")
    if embedding is not None and not _agrees(embedding, (size,)):
        faults.append(f"{EMBEDDING} {embedding.shape} for {size} values")
    return faults


def _type_name(dtype: np.dtype[Any]) -> str:
    """Return onnxruntime's name of a tensor type."""
    return f"tensor({_TYPE_NAMES.get(dtype.name, dtype.name)})"


def _is_map(shape: list[Any]) -> bool:
    sides = [side for side in shape[1:] if isinstance(side, int)]
    return len(shape) == 3 and all(side > 0 for side in sides) and math.prod(sides) <= MAX_POSITIONS


def _agrees(value: ort.NodeArg, shape: tuple[int, ...]) -> bool:
    """Return True if a value's shape after the batch can be `shape`. Dynamic dimensions match any size."""
    inner = value.shape[1:]
    return len(inner) == len(shape) and all(
        actual == expected or not isinstance(actual, int) for actual, expected in zip(inner, shape, strict=True)
    )

"""Run graphs from untrusted files, with errors for failed runs and unexpected outputs."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.metadata import MAX_POSITIONS

__all__ = ["check_outputs", "first_line", "run_session"]


def run_session(
    session: ort.InferenceSession,
    outputs: list[str] | None,
    feed: Mapping[str, "np.ndarray[Any, Any]"],
    path: Path,
    options: ort.RunOptions | None = None,
) -> list[Any]:
    """Run a graph once.

    Args:
        session: session of the graph.
        outputs: output names; None for all.
        feed: input arrays by name.
        path: path of the model file, for error messages.
        options: run options.

    Returns:
        The outputs; arrays, unless the graph defines other types.

    Raises:
        ModelFileError: onnxruntime cannot run the graph.
    """
    try:
        return list(session.run(outputs, feed, options))
    except Exception as error:  # onnxruntime's exceptions have no common public base class
        raise ModelFileError(
            f"onnxruntime {ort.__version__} cannot run {path}: {first_line(error)} Expected a graph written by "
            "`kdedge export`; copy or export it again."
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error message; onnxruntime's and protobuf's continue with a trace."""
    return str(error).strip().partition("\n")[0]


def check_outputs(
    path: Path,
    shape: tuple[int, int],
    logits: Any,
    saliency_map: Any = None,
    explained_class: Any = None,
    familiarity: Any = None,
    embedding: Any = None,
    embedding_size: int = 0,
) -> None:
    """Check a graph's outputs against the shapes, types and ranges in its metadata.

    Args:
        path: path of the model file, for error messages.
        shape: number of samples and labels.
        logits: logits, floats of this shape.
        saliency_map: maps, floats `[samples, h, w]` with 1 to `MAX_POSITIONS` values each; None skips this check.
        explained_class: class indices, integers `[samples]` from 0 to labels - 1; checked together with the map.
        familiarity: familiarity, floats `[samples]`; None skips this check.
        embedding: embeddings, floats `[samples, embedding_size]`; None skips this check.
        embedding_size: number of values of an embedding.

    Raises:
        ModelFileError: an output does not match.
    """
    count, labels = shape
    faults = []
    if not _is_array(logits, "f") or logits.shape != shape:
        faults.append(f"logits are {_described(logits)}, expected floats [{count}, {labels}]")
    if saliency_map is not None:
        is_map = _is_array(saliency_map, "f") and saliency_map.ndim == 3 and len(saliency_map) == count
        if not is_map or not 0 < math.prod(saliency_map.shape[1:]) <= MAX_POSITIONS:
            faults.append(f"saliency_map is {_described(saliency_map)}, expected floats [{count}, h, w]")
        if not _is_array(explained_class, "i") or explained_class.shape != (count,):
            faults.append(f"explained_class is {_described(explained_class)}, expected integers [{count}]")
        elif not ((explained_class >= 0) & (explained_class < labels)).all():
            faults.append(f"explained_class is {explained_class.tolist()}, expected 0 to {labels - 1}")
    if familiarity is not None and (not _is_array(familiarity, "f") or familiarity.shape != (count,)):
        faults.append(f"familiarity is {_described(familiarity)}, expected floats [{count}]")
    if embedding is not None and (not _is_array(embedding, "f") or embedding.shape != (count, embedding_size)):
        faults.append(f"embedding is {_described(embedding)}, expected floats [{count}, {embedding_size}]")
    if faults:
        raise ModelFileError(f"{path} does not match its metadata: {'; '.join(faults)}. Export it again.")


def _is_array(value: Any, kind: str) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == kind


def _described(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__

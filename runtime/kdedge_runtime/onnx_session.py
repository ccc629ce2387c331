"""Run a graph from an untrusted file: refuse errors of onnxruntime and outputs of other shapes and types."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.metadata import MOST_CELLS

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
        session: of the graph.
        outputs: their names; None for all.
        feed: input arrays by name.
        path: of the model file, for the message.
        options: of this run.

    Returns:
        The outputs, arrays unless the graph says otherwise.

    Raises:
        ModelFileError: onnxruntime cannot run the graph.
    """
    try:
        return list(session.run(outputs, feed, options))
    except Exception as error:  # onnxruntime raises its own types without a common, public base
        raise ModelFileError(
            f"onnxruntime {ort.__version__} cannot run {path}: {first_line(error)} Expected a graph that "
            "`kdedge export` wrote; copy or export it again."
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; onnxruntime's and protobuf's continue with a trace."""
    return str(error).strip().partition("\n")[0]


def check_outputs(
    path: Path, shape: tuple[int, int], logits: Any, saliency_map: Any = None, explained_class: Any = None
) -> None:
    """Check a graph's outputs against the shapes, types and ranges of its metadata.

    Args:
        path: of the model file, for the message.
        shape: images and labels.
        logits: floats of this shape.
        saliency_map: floats `[images, h, w]` with 1 to `MOST_CELLS` cells; None is not judged.
        explained_class: integers `[images]` from 0 to labels - 1; judged with the map.

    Raises:
        ModelFileError: one is something else.
    """
    count, labels = shape
    faults = []
    if not _is_array(logits, "f") or logits.shape != shape:
        faults.append(f"logits are {_described(logits)}, expected floats [{count}, {labels}]")
    if saliency_map is not None:
        is_map = _is_array(saliency_map, "f") and saliency_map.ndim == 3 and len(saliency_map) == count
        if not is_map or not 0 < math.prod(saliency_map.shape[1:]) <= MOST_CELLS:
            faults.append(f"saliency_map is {_described(saliency_map)}, expected floats [{count}, h, w]")
        if not _is_array(explained_class, "i") or explained_class.shape != (count,):
            faults.append(f"explained_class is {_described(explained_class)}, expected integers [{count}]")
        elif not ((explained_class >= 0) & (explained_class < labels)).all():
            faults.append(f"explained_class is {explained_class.tolist()}, expected 0 to {labels - 1}")
    if faults:
        raise ModelFileError(f"{path} is not what its metadata says: {'; '.join(faults)}. Export it again.")


def _is_array(value: Any, kind: str) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == kind


def _described(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__

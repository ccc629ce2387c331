"""Classification output of a graph, and its logits before a softmax or sigmoid.

A single sigmoid, as in Keras's binary classifiers, is treated as two classes. Their logits are −z/2 and z/2, where z is
the sigmoid's input, so that their softmax is one minus the sigmoid, and the sigmoid. The first class's map is the
negative of the second's, and neither is empty.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge_export.onnx_graph.graph_index import FLOATS, Array, GraphIndex, TensorProbe
from kdedge_runtime.errors import ModelFileError, UsageError

__all__ = ["RESHAPING", "ROUNDING", "LogitsOutput", "count_classes", "find_logits", "with_two_classes"]

RESHAPING = {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout"}
ROUNDING = {"QuantizeLinear", "DequantizeLinear"}
_TWO_CLASSES = "kdedge/two_classes"
_MIN_BOXES = 100
"""Minimum number of a detector's boxes per image."""
_BOXES_PER_VALUE = 20
"""Minimum ratio of boxes to values per box; a transformer has fewer tokens per channel."""


@dataclass(frozen=True)
class LogitsOutput:
    """Classification output of a graph."""

    output: str
    """Name of the graph output."""
    logits: str
    """Tensor before a final softmax or sigmoid, with one value or one per class."""
    classes: int
    """Number of classes; 1 for a single sigmoid."""


def find_logits(
    view: GraphIndex, feed: Mapping[str, Array], name: str, head: str | None = None, *, folder: Path | None = None
) -> LogitsOutput:
    """Find the classification output of a graph.

    Args:
        view: the graph.
        feed: example images.
        name: name used in messages.
        head: the output to use; None uses the only one, or the one named `logits`.
        folder: folder of external weights, if they are not loaded.

    Raises:
        ModelFileError: the graph is not an image classifier, or has several classification outputs and `head` is None.
        UsageError: `head` is not a classification output.
    """
    outputs, predictions = _predictions(view, feed, name, folder)
    if head is not None:
        chosen = [prediction for prediction in predictions if prediction.output == head]
        if not chosen:
            known = ", ".join(prediction.output for prediction in predictions) or "none"
            raise UsageError(
                f"{name} has no classification head {head!r}. Its heads are: {known}. Name one: --head NAME."
            )
        return chosen[0]
    several = [prediction for prediction in predictions if prediction.classes > 1] or predictions
    if len({prediction.logits for prediction in several}) == 1:  # logits and their softmax count as one output
        return several[0]
    named = [prediction for prediction in several if prediction.output == "logits"]
    if named:
        return named[0]
    names = ", ".join(prediction.output for prediction in several)
    raise ModelFileError(
        f"{name} has several heads: its outputs are {_shown(outputs)}. Choose one of {names}: kdedge "
        f"export {name} --head {several[0].output}."
    )


def count_classes(view: GraphIndex, feed: Mapping[str, Array], name: str) -> int:
    """Return the number of classes of a graph; with several heads, of the first one.

    Args:
        view: the graph.
        feed: example images.
        name: name used in messages.

    Raises:
        ModelFileError: the graph is not an image classifier.
    """
    _, predictions = _predictions(view, feed, name)
    named = [prediction for prediction in predictions if prediction.output == "logits"]
    several = [prediction for prediction in predictions if prediction.classes > 1]
    return max((named or several or predictions)[0].classes, 2)


def with_two_classes(model: onnx.ModelProto, prediction: LogitsOutput) -> tuple[onnx.ModelProto, str]:
    """Add float32 logits of two classes if a graph has a single sigmoid.

    Args:
        model: the model, which is not modified.
        prediction: classification output of the graph.

    Returns:
        The graph, and its logits tensor `[N, K]` with K ≥ 2.
    """
    if prediction.classes > 1:
        return model, prediction.logits
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    shape, half = f"{_TWO_CLASSES}/shape", f"{_TWO_CLASSES}/half"
    wider.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1], dtype=np.int64), shape))
    wider.graph.initializer.append(numpy_helper.from_array(np.array(0.5, dtype=np.float32), half))
    first, second, column, wide = (f"{_TWO_CLASSES}/{part}" for part in ("first", "second", "column", "float32"))
    wider.graph.node.extend(
        helper.make_node(op_type, inputs, [output], name=f"{output}/node", **given)
        for op_type, inputs, output, given in (
            ("Reshape", [prediction.logits, shape], column, {}),
            ("Cast", [column], wide, {"to": TensorProto.FLOAT}),
            ("Mul", [wide, half], second, {}),
            ("Neg", [second], first, {}),
            ("Concat", [first, second], _TWO_CLASSES, {"axis": 1}),
        )
    )
    return wider, _TWO_CLASSES


def _predictions(
    view: GraphIndex, feed: Mapping[str, Array], name: str, folder: Path | None = None
) -> tuple[dict[str, Array], list[LogitsOutput]]:
    tensors = [value.name for value in view.model.graph.output if value.type.HasField("tensor_type")]
    probe = TensorProbe(view.model, tensors, name, folder=folder)
    try:
        outputs = probe(feed)
    except ModelFileError as error:
        raise ModelFileError(f"{error} Export it for that batch and size, preferably with a dynamic batch.") from error
    (images,) = {len(value) for value in feed.values()}
    predictions = [
        prediction
        for tensor, value in outputs.items()
        if value.dtype.name in FLOATS and (prediction := _prediction(view, tensor, value, images)) is not None
    ]
    if predictions:
        return outputs, predictions
    if _detects(view, outputs):
        raise ModelFileError(
            f"{name} is a detector: for {images} images it returns {_shown(outputs)}, which are boxes. kdedge "
            "explains classifiers of whole images. Export a classifier, such as yolo11n-cls instead of yolo11n."
        )
    raise ModelFileError(
        f"{name} is not a classifier: for {images} images it returns {_shown(outputs)}. "
        f"Expected a float output [{images}, classes] of two or more classes, or [{images}, 1] after a Sigmoid."
    )


def _detects(view: GraphIndex, outputs: Mapping[str, Array]) -> bool:
    """Return True for a detector, by NonMaxSuppression, task or output names, or many short rows.

    YOLO returns `[N, 4 + classes, boxes]` or `[N, boxes, 5 + classes]`, DETR `[N, boxes, 4]`, and models with built-in
    suppression `[N, boxes, 6]`.
    """
    tasks = {item.value for item in view.model.metadata_props if item.key == "task"}
    if tasks & {"detect", "segment", "pose", "obb"} or any("NonMaxSuppression" in node.op_type for node in view.nodes):
        return True
    if any(word in tensor.lower() for tensor in outputs for word in ("box", "bbox", "detection")):
        return True
    shapes = [value.shape for value in outputs.values() if value.dtype.name in FLOATS]
    return any(
        len(shape) == 3 and max(shape[1:]) >= max(_MIN_BOXES, _BOXES_PER_VALUE * min(shape[1:])) for shape in shapes
    )


def _shown(outputs: Mapping[str, Array]) -> str:
    return ", ".join(f"{tensor} {value.dtype} {list(value.shape)}" for tensor, value in outputs.items())


def _prediction(view: GraphIndex, tensor: str, value: Array, images: int) -> LogitsOutput | None:
    if not value.ndim or len(value) != images:
        return None
    if value.ndim >= 2 and value.shape[1] > 1 and value.size == images * value.shape[1]:
        return LogitsOutput(
            tensor, _before(view, tensor, ("Softmax", "LogSoftmax", "Sigmoid")) or tensor, value.shape[1]
        )
    before = _before(view, tensor, ("Sigmoid",)) if value.size == images else None
    return None if before is None else LogitsOutput(tensor, before, 1)


def _before(view: GraphIndex, output: str, ends: Iterable[str]) -> str | None:
    """Return the input of a final operator of one of these types, else None."""
    tensor = output
    while (node := view.producer(tensor)) is not None:
        if node.op_type in ends:
            return str(node.input[0])
        if node.op_type not in RESHAPING | ROUNDING:
            break
        tensor = node.input[0]
    return None

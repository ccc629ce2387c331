"""The answer of a classifier's graph: the output that ranks the classes, and its logits before a softmax or sigmoid.

A single sigmoid, as Keras's binary classifiers have it, is an answer of two classes. Their logits are −z/2 and z/2,
where z is the sigmoid's input. Their softmax is one minus the sigmoid, and the sigmoid. The first class's map is
the second's with its sign turned, and neither is empty.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kdedge_export.onnx_graph.graph_index import FLOATS, Array, GraphView, run_graph
from kdedge_runtime.errors import ModelFileError, UsageError

__all__ = ["RESHAPING", "ROUNDING", "Answer", "count_classes", "find_answer", "with_two_classes"]

RESHAPING = {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout"}
ROUNDING = {"QuantizeLinear", "DequantizeLinear"}
_TWO_CLASSES = "kdedge/two_classes"
_FEWEST_BOXES = 100
"""Fewest boxes of a detector for one image."""
_BOXES_PER_VALUE = 20
"""Fewest boxes for each value of a box; a transformer's tokens are fewer for each of their channels."""


@dataclass(frozen=True)
class Answer:
    """One output of a graph that ranks classes."""

    output: str
    """The graph's own output."""
    logits: str
    """The tensor before a softmax or sigmoid at the end, of one value or one for each class."""
    classes: int
    """1 stands for a single sigmoid."""


def find_answer(view: GraphView, feed: Mapping[str, Array], name: str, head: str | None = None) -> Answer:
    """Find the answer of a graph.

    Args:
        view: the graph.
        feed: pictures.
        name: what messages call the graph.
        head: the output to take; None takes the only one, or one that is named `logits`.

    Raises:
        ModelFileError: it is no image classifier, or it gives several answers and `head` is None.
        UsageError: `head` is none of its answers.
    """
    outputs, answers = _answers(view, feed, name)
    if head is not None:
        chosen = [answer for answer in answers if answer.output == head]
        if not chosen:
            known = ", ".join(answer.output for answer in answers) or "none"
            raise UsageError(f"{name} has no head {head!r} that ranks classes. It has: {known}. Name one: --head NAME.")
        return chosen[0]
    several = [answer for answer in answers if answer.classes > 1] or answers
    if len({answer.logits for answer in several}) == 1:  # logits and their softmax are one answer
        return several[0]
    named = [answer for answer in several if answer.output == "logits"]
    if named:
        return named[0]
    names = ", ".join(answer.output for answer in several)
    raise ModelFileError(
        f"{name} has several heads: it gives {_shown(outputs)}. Choose one of {names}: --head {several[0].output}."
    )


def count_classes(view: GraphView, feed: Mapping[str, Array], name: str) -> int:
    """Return how many classes a graph tells apart; of several heads, those of the first.

    Args:
        view: the graph.
        feed: pictures.
        name: what messages call the graph.

    Raises:
        ModelFileError: it is no image classifier.
    """
    _, answers = _answers(view, feed, name)
    named = [answer for answer in answers if answer.output == "logits"]
    several = [answer for answer in answers if answer.classes > 1]
    return max((named or several or answers)[0].classes, 2)


def with_two_classes(model: onnx.ModelProto, answer: Answer, feed: Mapping[str, Array]) -> tuple[onnx.ModelProto, str]:
    """Add the logits of two classes where a graph has a single sigmoid.

    Args:
        model: is not changed.
        answer: of the graph.
        feed: pictures.

    Returns:
        The graph, and the tensor of its logits, `[N, K]` with K of 2 or more.
    """
    if answer.classes > 1:
        return model, answer.logits
    dtype = run_graph(model, [answer.logits], feed, "the graph")[answer.logits].dtype
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    shape, half = f"{_TWO_CLASSES}/shape", f"{_TWO_CLASSES}/half"
    wider.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1], dtype=np.int64), shape))
    wider.graph.initializer.append(numpy_helper.from_array(np.array(0.5, dtype=dtype), half))
    first, second, column = (f"{_TWO_CLASSES}/{part}" for part in ("first", "second", "column"))
    wider.graph.node.extend(
        helper.make_node(op_type, inputs, [output], name=f"{output}/node", **given)
        for op_type, inputs, output, given in (
            ("Reshape", [answer.logits, shape], column, {}),
            ("Mul", [column, half], second, {}),
            ("Neg", [second], first, {}),
            ("Concat", [first, second], _TWO_CLASSES, {"axis": 1}),
        )
    )
    return wider, _TWO_CLASSES


def _answers(view: GraphView, feed: Mapping[str, Array], name: str) -> tuple[dict[str, Array], list[Answer]]:
    outputs = run_graph(view.model, [value.name for value in view.model.graph.output], feed, name)
    (images,) = {len(value) for value in feed.values()}
    answers = [
        answer
        for tensor, value in outputs.items()
        if value.dtype.name in FLOATS and (answer := _answer(view, tensor, value, images)) is not None
    ]
    if answers:
        return outputs, answers
    if _detects(view, outputs):
        raise ModelFileError(
            f"{name} is a detector: for {images} images it gives {_shown(outputs)}, which are boxes. kdedge explains "
            "classifiers of whole pictures. Export a model of that kind, such as yolo11n-cls in place of yolo11n."
        )
    raise ModelFileError(
        f"{name} is no classifier that can be explained: for {images} images it gives {_shown(outputs)}. Expected an "
        f"output float [{images}, classes] of two classes or more, or [{images}, 1] behind a Sigmoid."
    )


def _detects(view: GraphView, outputs: Mapping[str, Array]) -> bool:
    """Return whether a graph detects objects: by NonMaxSuppression, names of its task or outputs, or many short rows.

    YOLO gives `[N, 4 + classes, boxes]` or `[N, boxes, 5 + classes]`, DETR `[N, boxes, 4]`, and models with
    suppression inside `[N, boxes, 6]`.
    """
    tasks = {item.value for item in view.model.metadata_props if item.key == "task"}
    if tasks & {"detect", "segment", "pose", "obb"} or any("NonMaxSuppression" in node.op_type for node in view.nodes):
        return True
    if any(word in tensor.lower() for tensor in outputs for word in ("box", "bbox", "detection")):
        return True
    shapes = [value.shape for value in outputs.values() if value.dtype.name in FLOATS]
    return any(
        len(shape) == 3 and max(shape[1:]) >= max(_FEWEST_BOXES, _BOXES_PER_VALUE * min(shape[1:])) for shape in shapes
    )


def _shown(outputs: Mapping[str, Array]) -> str:
    return ", ".join(f"{tensor} {value.dtype} {list(value.shape)}" for tensor, value in outputs.items())


def _answer(view: GraphView, tensor: str, value: Array, images: int) -> Answer | None:
    if not value.ndim or len(value) != images:
        return None
    if value.ndim >= 2 and value.shape[1] > 1 and value.size == images * value.shape[1]:
        return Answer(tensor, _before(view, tensor, ("Softmax", "LogSoftmax", "Sigmoid")) or tensor, value.shape[1])
    before = _before(view, tensor, ("Sigmoid",)) if value.size == images else None
    return None if before is None else Answer(tensor, before, 1)


def _before(view: GraphView, output: str, ends: Iterable[str]) -> str | None:
    """Return the input of an operator at the end of the graph; None where it ends with none of these."""
    tensor = output
    while (node := view.maker(tensor)) is not None:
        if node.op_type in ends:
            return str(node.input[0])
        if node.op_type not in RESHAPING | ROUNDING:
            break
        tensor = node.input[0]
    return None

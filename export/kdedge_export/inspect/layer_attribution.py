"""How a model comes to its answer about one picture: the evidence at each stage of the network.

At a stage with activations A and the logit z of the explained class, a cell's evidence is `Σ_k (∂z/∂A_kij) · A_kij`:
gradient times activation (HiResCAM, Draelos and Carin 2020). Summed over the cells instead it is a channel's part
`c_k`; at the last stage before a global pooling, with weights w and pooled features a, that is `c_k = w_k · a_k`. Of
a transformer, cells are the tokens of patches, at stages that are what an attention reads; what tokens beside them
hold, such as a class token, is told apart. The gradient is written into a copy of the file's own graph. Where an
operator on the way has no derivative here, blocks of cells and channels are blanked instead (set to zero), and the
fall of the logit is their evidence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from kdedge_export.errors import HeadNotSupported
from kdedge_export.inspect.attribution import Channel, Evidence, Way, by_blanking, by_gradient, is_blind
from kdedge_export.inspect.attribution_layers import Layer, chosen, layers_with_cells
from kdedge_export.inspect.max_pool_gradient import max_pool
from kdedge_export.onnx_graph.autodiff import CannotDifferentiate, gradients
from kdedge_export.onnx_graph.builder import PREFIX, Builder
from kdedge_export.onnx_graph.graph_index import Array, GraphView, Probe, run_graph
from kdedge_export.onnx_graph.graph_input import image_port
from kdedge_export.onnx_graph.spatial.target_candidates import attentions
from kdedge_export.onnx_import.feature_edit import DELTA, FEATURES, MASK, with_edited_features
from kdedge_export.onnx_import.logits_output import find_answer

__all__ = ["Channel", "Decision", "Stage", "Way", "decide", "last_layer"]

_CLASS, _ONE_HOT = f"{PREFIX}inspected_class", f"{PREFIX}inspected_one_hot"
_RANKED = 5


@dataclass(frozen=True)
class Stage:
    """What a stage of the network knows of the decision."""

    tensor: str
    cells: tuple[int, int]
    """Height and width of the stage's activations."""
    evidence: Evidence
    attention: tuple[int, int] | None = None
    """Which attention reads it, counted from 1, and how many there are; None where all of the answer goes through."""
    why_blanked: str | None = None
    """The operator without a derivative, where blanking took the place of the gradient."""

    @property
    def way(self) -> Way:
        """How the evidence was found."""
        return "gradient × activation" if self.why_blanked is None else "blanking"


@dataclass(frozen=True)
class Decision:
    """An answer and how the model came to it."""

    explained_class: int
    ranking: tuple[tuple[int, float], ...]
    """The classes with the largest logits and their softmax, largest first."""
    stages: tuple[Stage, ...]
    """From coarse to fine: the last stage of the network first."""
    features_by_class: Mapping[int, tuple[Channel, ...]]
    """For each class of the ranking, the last stage's channels with the largest shares."""


def decide(
    model: onnx.ModelProto,
    feed: Mapping[str, Array],
    name: str,
    *,
    class_index: int | None = None,
    logits: Array | None = None,
    temperature: float = 1.0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Decision:
    """Follow one picture through a classifier.

    Args:
        model: any classifier with one image input; explained files are fine.
        feed: the picture, as the graph wants it, in a batch of one.
        name: what messages call the model.
        class_index: the class to explain; None takes the most probable one.
        logits: `[K]` or `[1, K]`, what the model says of the picture as it is run. Here the graph runs as it is
            written, and ONNX Runtime's integer kernels round elsewhere. None takes what it says here.
        temperature: of the softmax that ranks the classes.
        progress: called with how many stages are done and how many there are.

    Raises:
        ModelFileError: it is no classifier of pictures.
        HeadNotSupported: nothing that all of the answer goes through lies over the picture.
    """
    run = _Run.of(_with_batch_of_one(model), feed, name)
    layers = layers_with_cells(run.view, image_port(run.view, name), run.logits, run.path, run.values)
    logits = (run.values[run.logits] if logits is None else logits).astype(np.float64).ravel()
    probabilities = np.exp((logits - logits.max()) / temperature)
    probabilities /= probabilities.sum()
    best = np.argsort(-logits, kind="stable")[:_RANKED]
    explained = int(best[0]) if class_index is None else class_index
    slopes, why = _slopes(run, layers)
    held = {} if slopes is None else slopes.of_class(explained)
    stages_at = chosen(_that_tell(run, layers, held))
    stages = []
    for done, layer in enumerate(stages_at):
        progress(done, len(stages_at))
        evidence = (
            by_gradient(layer.grid, run.values[layer.tensor], held[layer.tensor])
            if layer.tensor in held
            else _by_blanking(run, layer, explained)
        )
        stages.append(
            Stage(
                tensor=layer.tensor,
                cells=layer.grid.size,
                evidence=evidence,
                attention=None if layer.reader is None else (layer.reader, run.attentions),
                why_blanked=None if layer.tensor in held else why,
            )
        )
    features: dict[int, tuple[Channel, ...]] = {}
    last = stages_at[0]
    if slopes is not None and last.tensor in held:
        for item in dict.fromkeys([explained, *map(int, best)]):
            features[item] = by_gradient(
                last.grid, run.values[last.tensor], slopes.of_class(item)[last.tensor]
            ).channels
    progress(len(stages_at), len(stages_at))
    ranking = tuple((int(index), float(probabilities[index])) for index in best)
    return Decision(explained, ranking, tuple(stages), features)


def last_layer(model: onnx.ModelProto, feed: Mapping[str, Array], name: str) -> Layer:
    """The last that lies over a picture, has weights after it and moves the most probable class: the first stage.

    Args:
        model: any classifier with one image input.
        feed: a picture, as the graph wants it, in a batch of one.
        name: what messages call the model.

    Raises:
        ModelFileError: it is no classifier of pictures.
        HeadNotSupported: there is none.
    """
    run = _Run.of(_with_batch_of_one(model), feed, name)
    layers = layers_with_cells(run.view, image_port(run.view, name), run.logits, run.path, run.values)
    slopes, _ = _slopes(run, layers)
    held = {} if slopes is None else slopes.of_class(int(run.values[run.logits].argmax()))
    return _that_tell(run, layers, held)[-1]


@dataclass(frozen=True)
class _Run:
    """A model, one picture, and what its tensors held."""

    model: onnx.ModelProto
    view: GraphView
    name: str
    feed: Mapping[str, Array]
    logits: str
    path: list[int]
    """The nodes from the image to the logits."""
    values: Mapping[str, Array]
    """All that the path reads and makes."""

    @classmethod
    def of(cls, model: onnx.ModelProto, feed: Mapping[str, Array], name: str) -> "_Run":
        view = GraphView(model)
        logits = find_answer(view, feed, name).logits
        path = view.between(image_port(view, name).name, logits)
        names = {item for at in path for item in (*view.nodes[at].input, *view.nodes[at].output) if item}
        held = dict(feed) | {item: value for item in names if (value := view.value(item)) is not None}
        values = held | run_graph(model, sorted(names - held.keys()), feed, name)
        return cls(model, view, name, feed, logits, path, values)

    @property
    def attentions(self) -> int:
        """How many are on the path."""
        return len(attentions(self.view, self.path))


def _with_batch_of_one(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and dims[0].dim_value <= 0:
            dims[0].dim_value = 1
    return copy


@dataclass(frozen=True)
class _Slopes:
    """The derivatives of a logit with respect to layers, by the layer's tensor."""

    probe: Probe
    feed: Mapping[str, Array]
    by_tensor: Mapping[str, str]
    no_class: Array
    """Zeros in the shape and type of the logits."""

    def of_class(self, index: int) -> dict[str, Array]:
        """Of that class's logit."""
        one_hot = self.no_class.copy()
        one_hot.reshape(-1)[index] = 1
        found = self.probe(dict(self.feed) | {_CLASS: np.array([index]), _ONE_HOT: one_hot})
        return {tensor: found[slope] for tensor, slope in self.by_tensor.items()}


def _slopes(run: _Run, layers: tuple[Layer, ...]) -> tuple[_Slopes | None, str]:
    """Of all layers behind the last operator without a derivative; and that operator, empty where there is none."""
    why = ""
    for first, layer in enumerate(layers):
        builder, rules = Builder(run.view), {"MaxPool": max_pool}
        try:
            grads = gradients(
                builder, run.view, run.values, run.logits, _CLASS, _ONE_HOT, layer.tensor, rules, all_whole=True
            )
        except CannotDifferentiate as error:
            why = str(error)
            continue
        no_class = np.zeros_like(run.values[run.logits])
        copy = onnx.ModelProto()
        copy.CopyFrom(run.model)
        kind = helper.np_dtype_to_tensor_dtype(no_class.dtype)
        copy.graph.input.append(helper.make_tensor_value_info(_CLASS, TensorProto.INT64, [1]))
        copy.graph.input.append(helper.make_tensor_value_info(_ONE_HOT, kind, no_class.shape))
        builder.write(copy)
        by_tensor = {item.tensor: grads[item.tensor] for item in layers[first:] if item.tensor in grads}
        return _Slopes(Probe(copy, by_tensor.values(), run.name), run.feed, by_tensor, no_class), why
    return None, why


def _that_tell(run: _Run, layers: tuple[Layer, ...], slopes: Mapping[str, Array]) -> tuple[Layer, ...]:
    """Without those whose evidence is zero by construction."""
    telling = tuple(
        layer
        for layer in layers
        if layer.tensor not in slopes or not is_blind(layer.grid, run.values[layer.tensor], slopes[layer.tensor])
    )
    if telling:
        return telling
    raise HeadNotSupported(
        f"how {run.name} decides cannot be followed: that takes activations that all of the answer goes through and "
        "that lie over the picture, as cells or as tokens of patches, and its graph has none. "
        "Its answers, its own map and its layers are told all the same."
    )


def _by_blanking(run: _Run, layer: Layer, explained: int) -> Evidence:
    activations = run.values[layer.tensor]
    edited, _ = with_edited_features(run.model, layer.tensor, run.logits, activations, without_rounding=False)
    probe = Probe(edited, [run.logits], run.name)
    nothing = np.zeros([1] * activations.ndim, activations.dtype)

    def logit(mask: Array) -> float:
        edits = {FEATURES: activations, MASK: mask.astype(activations.dtype), DELTA: nothing}
        return float(probe(dict(run.feed) | edits)[run.logits].reshape(-1)[explained])

    return by_blanking(layer.grid, activations, logit)

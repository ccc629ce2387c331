"""How a model comes to its answer about one picture: the evidence at each stage of the network.

At a stage with activations A and the logit z of the explained class, a cell's evidence is `Σ_k (∂z/∂A_kij) · A_kij`:
gradient times activation (HiResCAM, Draelos and Carin 2020). Summed over the cells instead it is a channel's part
`c_k`; at the last stage before a global pooling, with weights w and pooled features a, that is `c_k = w_k · a_k`. The
gradient is written into a copy of the file's own graph. Where an operator on the way has no derivative here, blocks of
cells and channels are blanked instead (set to zero), and the fall of the logit is their evidence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from kdedge_export.errors import HeadNotSupported
from kdedge_export.inspect.max_pool import max_pool
from kdedge_export.surgery.anatomy import Anatomy, dissect
from kdedge_export.surgery.builder import PREFIX, Builder
from kdedge_export.surgery.edit import DELTA, MASK, with_edited_features
from kdedge_export.surgery.gradient import gradients
from kdedge_export.surgery.saliency import one_hot_of
from kdedge_export.surgery.step import CannotDifferentiate
from kdedge_export.surgery.view import Array, GraphView, Probe, run_graph
from kdedge_runtime.arrays import Floats

__all__ = ["Channel", "Decision", "Stage", "Way", "decide"]

Way: TypeAlias = Literal["gradient × activation", "blanking"]
MOST_STAGES = 5
FINEST_CELLS = 60
"""Along the longer side of the finest stage that is shown."""
KEPT_CHANNELS = 6
"""Of each stage, with maps of their own."""
_BLANKED_BLOCKS = 7
"""Along a side: each is a run of the model."""
_BLANKED_CHANNELS = 24
"""Of the most active ones, likewise."""
_CLASS = f"{PREFIX}inspected_class"
_RANKED = 5


@dataclass(frozen=True)
class Channel:
    """One channel's part in a decision."""

    index: int
    evidence: float
    """Signed, in units of the logit; of blanking, by how much the logit falls without it."""
    share: float
    """`|c_k| / Σ_j |c_j|` over the stage's channels; of blanking, over those that were blanked."""
    saliency_map: Floats
    """`[h, w]`, its evidence by cell; of blanking, its activations with the sign of its evidence."""


@dataclass(frozen=True)
class Stage:
    """What a stage of the network knows of the decision."""

    tensor: str
    way: Way
    cells: tuple[int, int]
    """Height and width of the stage's activations."""
    saliency_map: Floats
    """`[h, w]`, signed: positive cells speak for the class. Of blanking, a cell a block, which is coarser."""
    channel_count: int
    channels: tuple[Channel, ...]
    """Those with the largest shares, largest first."""
    shares: NDArray[np.float64]
    """Of all channels, largest first; they add up to 1, or to 0 where there is no evidence."""
    why_blanked: str | None = None

    def channels_for(self, share: float) -> int:
        """How many channels carry this much of the evidence."""
        return min(int(np.searchsorted(np.cumsum(self.shares), share - 1e-9)) + 1, self.channel_count)


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
    temperature: float = 1.0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Decision:
    """Follow one picture through a classifier.

    Args:
        model: any classifier with one image input; explained files are fine.
        feed: the picture, as the graph wants it, in a batch of one.
        name: what messages call the model.
        class_index: the class to explain; None takes the most probable one.
        temperature: of the softmax that ranks the classes.
        progress: called with how many stages are done and how many there are.

    Raises:
        ModelFileError: it is no classifier of pictures.
        HeadNotSupported: it has no maps of features.
    """
    model = _with_batch(model, next(iter(feed.values())).shape[0])
    view = GraphView(model)
    side_px = max(next(iter(feed.values())).shape[1:])
    try:
        parts = dissect(view, name, side_px=side_px)
    except HeadNotSupported as error:
        raise HeadNotSupported(
            f"how {name} decides cannot be followed: that takes features that lie over the picture, and its graph "
            "shows none. Its answers, its own map and its layers are told all the same."
        ) from error
    cuts = view.cuts(parts.port.name, parts.target)[1:]
    held = run_graph(model, [*cuts, parts.logits], feed, name)
    logits = held[parts.logits].astype(np.float64).ravel()
    probabilities = np.exp((logits - logits.max()) / temperature)
    probabilities /= probabilities.sum()
    best = np.argsort(-logits, kind="stable")[:_RANKED]
    explained = int(best[0]) if class_index is None else class_index
    tensors = _stages(view, cuts, held, parts)
    stages = []
    features: dict[int, tuple[Channel, ...]] = {}
    for done, tensor in enumerate(tensors):
        progress(done, len(tensors))
        try:
            slope = _slope(model, view, parts, tensor, feed, name)
            stages.append(_by_gradient(parts, tensor, held[tensor], slope(explained)))
            if done == 0:
                for item in dict.fromkeys([explained, *map(int, best)]):
                    features[item] = _by_gradient(parts, tensor, held[tensor], slope(item)).channels
        except CannotDifferentiate as error:
            stages.append(_by_blanking(model, parts, tensor, held[tensor], feed, name, explained, str(error)))
    progress(len(tensors), len(tensors))
    ranking = tuple((int(index), float(probabilities[index])) for index in best)
    return Decision(explained, ranking, tuple(stages), features)


def _with_batch(model: onnx.ModelProto, images: int) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and dims[0].dim_value <= 0:
            dims[0].dim_value = images
    return copy


def _stages(view: GraphView, cuts: list[str], held: Mapping[str, Array], parts: Anatomy) -> list[str]:
    """The target, and of every finer resolution before it the last tensor; coarse to fine.

    Rows of cells and tokens are followed at the target only.
    """
    if parts.layout.kind != "NCHW":
        return [parts.target]
    by_size: dict[tuple[int, ...], str] = {}
    for tensor in cuts:
        value = held[tensor]
        maker = view.maker(tensor)
        is_padded = maker is not None and maker.op_type == "Pad"
        if value.ndim == 4 and value.dtype.kind == "f" and _is_like(value, parts) and not is_padded:
            by_size[value.shape[2:]] = tensor
    by_size[held[parts.target].shape[2:]] = parts.target
    sizes = sorted((size for size in by_size if max(size) <= FINEST_CELLS and min(size) > 1), key=max)
    return [by_size[size] for size in sizes[:MOST_STAGES]]


def _is_like(value: Array, parts: Anatomy) -> bool:
    return bool(value.shape[1] > 3 and min(value.shape[2:]) >= min(parts.cells))


def _slope(
    model: onnx.ModelProto, view: GraphView, parts: Anatomy, tensor: str, feed: Mapping[str, Array], name: str
) -> Callable[[int], Array]:
    """The derivative of a logit with respect to a stage's activations, by class."""
    path = view.between(tensor, parts.logits)
    wanted = {item for at in path for item in (*view.nodes[at].input, *view.nodes[at].output) if item}
    constants = {item: value for item in wanted if (value := view.value(item)) is not None}
    values = constants | run_graph(model, sorted((wanted | {tensor}) - constants.keys()), feed, name)
    builder = Builder(view)
    one_hot = one_hot_of(builder, parts, _CLASS)
    rules = {"MaxPool": max_pool}
    grads = gradients(builder, view, values, parts.logits, _CLASS, one_hot, tensor, rules)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.input.append(helper.make_tensor_value_info(_CLASS, TensorProto.INT64, [1]))
    builder.write(copy)
    probe = Probe(copy, [grads[tensor]], name)
    return lambda index: probe(dict(feed) | {_CLASS: np.array([index])})[grads[tensor]]


def _by_gradient(parts: Anatomy, tensor: str, activations: Array, slope: Array) -> Stage:
    evidence = _channels_first(parts, activations) * _channels_first(parts, slope)
    by_channel = evidence.sum(axis=(1, 2))
    summed = evidence.sum(axis=0).astype(np.float32)
    return _stage(tensor, "gradient × activation", summed, by_channel, evidence)


def _by_blanking(
    model: onnx.ModelProto,
    parts: Anatomy,
    tensor: str,
    activations: Array,
    feed: Mapping[str, Array],
    name: str,
    explained: int,
    why: str,
) -> Stage:
    edited, _ = with_edited_features(model, tensor, parts.logits, activations, without_rounding=False)
    probe = Probe(edited, [parts.logits], name)

    def logit(mask: Array) -> float:
        edits = {MASK: mask.astype(activations.dtype), DELTA: nothing.astype(activations.dtype)}
        return float(probe(dict(feed) | edits)[parts.logits].reshape(-1)[explained])

    layout, nothing = parts.layout, parts.layout.over_channels([0.0])
    held = _channels_first(parts, activations)
    count, height, width = held.shape
    whole = logit(layout.over_channels([1.0]))
    rows, columns = min(_BLANKED_BLOCKS, height), min(_BLANKED_BLOCKS, width)
    falls = np.zeros((rows, columns), dtype=np.float32)
    for row, column in np.ndindex(rows, columns):
        mask = np.ones((height, width))
        mask[
            row * height // rows : (row + 1) * height // rows,
            column * width // columns : (column + 1) * width // columns,
        ] = 0
        falls[row, column] = whole - logit(layout.over_cells(mask, 1.0))
    by_channel = np.zeros(count)
    for k in np.argsort(-np.abs(held).sum(axis=(1, 2)), kind="stable")[:_BLANKED_CHANNELS]:
        kept = np.ones(count)
        kept[k] = 0
        by_channel[k] = whole - logit(layout.over_channels(kept))
    return _stage(tensor, "blanking", falls, by_channel, held * np.sign(by_channel)[:, None, None], why)


def _stage(
    tensor: str, way: Way, saliency_map: Floats, by_channel: Array, maps: Array, why: str | None = None
) -> Stage:
    total = float(np.abs(by_channel).sum()) or 1.0
    order = np.argsort(-np.abs(by_channel), kind="stable")
    channels = tuple(
        Channel(int(k), float(by_channel[k]), float(abs(by_channel[k]) / total), maps[k].astype(np.float32))
        for k in order[:KEPT_CHANNELS]
    )
    return Stage(
        tensor=tensor,
        way=way,
        cells=(maps.shape[1], maps.shape[2]),
        saliency_map=saliency_map,
        channel_count=len(by_channel),
        channels=channels,
        shares=np.abs(by_channel[order]) / total,
        why_blanked=why,
    )


def _channels_first(parts: Anatomy, value: Array) -> Array:
    """The one image's `[C, h, w]`, in double precision."""
    one: Array = value[0].astype(np.float64)
    if parts.layout.kind == "tokens":
        one = one[parts.layout.prefix :].reshape(parts.layout.height, parts.layout.width, -1)
    return one if parts.layout.kind == "NCHW" else one.transpose(2, 0, 1)

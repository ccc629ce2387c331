"""Layer attribution: the evidence for a class at each stage of the network, for one image.

At a stage with activations A and the logit z of the explained class, the evidence at a position is `Σ_k (∂z/∂A_kij) ·
A_kij`: gradient × activation (HiResCAM, Draelos and Carin 2020). Its sum over positions instead of channels is the
evidence `c_k` of a channel. At the last stage before global pooling, with weights w and pooled features a, it is `c_k =
w_k · a_k`. In a transformer, positions are patch tokens at the inputs of attentions; the evidence of other tokens, such
as a class token, is reported separately. The gradient is added to a copy of the file's own graph. If an operator has no
derivative, blocks of positions and channels are ablated instead (set to zero), and the drop of the logit is their
evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from kdedge_export.errors import HeadNotSupported
from kdedge_export.inspection.attribution import Attribution, Channel, Way, by_ablation, by_gradient, is_blind
from kdedge_export.inspection.attribution_layers import SpatialLayer, choose_layers, spatial_layers
from kdedge_export.inspection.max_pool_gradient import max_pool_gradient
from kdedge_export.onnx_graph.autodiff import CannotDifferentiate, gradients
from kdedge_export.onnx_graph.builder import PREFIX, NodeBuilder
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex, TensorProbe, run_graph
from kdedge_export.onnx_graph.graph_input import find_image_input
from kdedge_export.onnx_graph.spatial.target_candidates import attentions
from kdedge_export.onnx_import.feature_edit import DELTA, FEATURES, MASK, with_edited_features
from kdedge_export.onnx_import.logits_output import find_logits
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["Channel", "LayerAttribution", "AttributionStage", "Way", "attribute_layers", "last_layer"]

_CLASS, _ONE_HOT = f"{PREFIX}inspected_class", f"{PREFIX}inspected_one_hot"
_RANKED = 5


@dataclass(frozen=True)
class AttributionStage:
    """Attribution at one stage of the network."""

    tensor: str
    positions: tuple[int, int]
    """Height and width of the stage's activations."""
    evidence: Attribution
    attention: tuple[int, int] | None = None
    """Number of the attention that reads it, from 1, and the total; None for a tensor on every path to the logits."""
    why_blanked: str | None = None
    """Operator without a derivative, if ablation replaced the gradient."""

    @property
    def way(self) -> Way:
        """Attribution method."""
        return "gradient × activation" if self.why_blanked is None else "blanking"


@dataclass(frozen=True)
class LayerAttribution:
    """Prediction with its layer attribution."""

    explained_class: int
    ranking: tuple[tuple[int, float], ...]
    """Classes with the largest logits and their scores by the task, largest first."""
    stages: tuple[AttributionStage, ...]
    """Stages from coarse to fine: the last stage of the network first."""
    features_by_class: Mapping[int, tuple[Channel, ...]]
    """Channels of the last stage with the largest shares, for each class of the ranking."""


def attribute_layers(
    model: onnx.ModelProto,
    feed: Mapping[str, Array],
    name: str,
    *,
    class_index: int | None = None,
    logits: Array | None = None,
    temperature: float = 1.0,
    task: str = "classify",
    progress: ProgressCallback = no_progress,
) -> LayerAttribution:
    """Compute the layer attribution of a classifier for one image.

    Args:
        model: any classifier with one image input, with or without a map.
        feed: the image in the graph's format, in a batch of one.
        name: name used in messages.
        class_index: the class to explain; None uses the top-1 class.
        logits: logits `[K]` or `[1, K]` of the deployed model. The graph runs unoptimized here, while ONNX Runtime's
            integer kernels round differently. None uses the logits computed here.
        temperature: calibration temperature for the ranking.
        task: interpretation of the logits, a key of `kdedge_runtime.tasks.TASKS`.
        progress: called after every stage.

    Raises:
        ModelFileError: the model is not an image classifier.
        HeadNotSupported: no tensor on every path to the logits has spatial positions.
    """
    run = _Run.of(_with_batch_of_one(model), feed, name)
    layers = spatial_layers(run.view, find_image_input(run.view, name), run.logits, run.path, run.values)
    logits = (run.values[run.logits] if logits is None else logits).astype(np.float64).ravel()
    scores = TASKS[task].scores(logits.astype(np.float32)[None], temperature)[0]
    best = np.argsort(-logits, kind="stable")[:_RANKED]
    explained = int(best[0]) if class_index is None else class_index
    slopes, why = _slopes(run, layers)
    held = {} if slopes is None else slopes.of_class(explained)
    stages_at = choose_layers(_unblinded(run, layers, held))
    stages = []
    for done, layer in enumerate(stages_at):
        progress("tracing the image", done, len(stages_at))
        evidence = (
            by_gradient(layer.grid, run.values[layer.tensor], held[layer.tensor])
            if layer.tensor in held
            else _by_blanking(run, layer, explained)
        )
        stages.append(
            AttributionStage(
                tensor=layer.tensor,
                positions=layer.grid.size,
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
    progress("tracing the image", len(stages_at), len(stages_at))
    ranking = tuple((int(index), float(scores[index])) for index in best)
    return LayerAttribution(explained, ranking, tuple(stages), features)


def last_layer(model: onnx.ModelProto, feed: Mapping[str, Array], name: str) -> SpatialLayer:
    """Return the last layer with spatial positions that is followed by weights and affects the top-1 class.

    Args:
        model: any classifier with one image input.
        feed: an image in the graph's format, in a batch of one.
        name: name used in messages.

    Raises:
        ModelFileError: the model is not an image classifier.
        HeadNotSupported: there is no such layer.
    """
    run = _Run.of(_with_batch_of_one(model), feed, name)
    layers = spatial_layers(run.view, find_image_input(run.view, name), run.logits, run.path, run.values)
    slopes, _ = _slopes(run, layers)
    held = {} if slopes is None else slopes.of_class(int(run.values[run.logits].argmax()))
    return _unblinded(run, layers, held)[-1]


@dataclass(frozen=True)
class _Run:
    """Model, image, and the values of its tensors."""

    model: onnx.ModelProto
    view: GraphIndex
    name: str
    feed: Mapping[str, Array]
    logits: str
    path: list[int]
    """Nodes from the image to the logits."""
    values: Mapping[str, Array]
    """Values of all tensors read or produced on the path."""

    @classmethod
    def of(cls, model: onnx.ModelProto, feed: Mapping[str, Array], name: str) -> "_Run":
        view = GraphIndex(model)
        logits = find_logits(view, feed, name).logits
        path = view.between(find_image_input(view, name).name, logits)
        names = {item for at in path for item in (*view.nodes[at].input, *view.nodes[at].output) if item}
        held = dict(feed) | {item: value for item in names if (value := view.value(item)) is not None}
        values = held | run_graph(model, sorted(names - held.keys()), feed, name)
        return cls(model, view, name, feed, logits, path, values)

    @property
    def attentions(self) -> int:
        """Number of attentions on the path."""
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
    """Derivatives of a logit with respect to layers, by the layer's tensor."""

    probe: TensorProbe
    feed: Mapping[str, Array]
    by_tensor: Mapping[str, str]
    no_class: Array
    """Zeros in the shape and type of the logits."""

    def of_class(self, index: int) -> dict[str, Array]:
        """Return the derivatives of the logit of one class."""
        one_hot = self.no_class.copy()
        one_hot.reshape(-1)[index] = 1
        found = self.probe(dict(self.feed) | {_CLASS: np.array([index]), _ONE_HOT: one_hot})
        return {tensor: found[slope] for tensor, slope in self.by_tensor.items()}


def _slopes(run: _Run, layers: tuple[SpatialLayer, ...]) -> tuple[_Slopes | None, str]:
    """Return the derivatives of all layers after the last operator without a derivative, and that operator or ""."""
    why = ""
    for first, layer in enumerate(layers):
        builder, rules = NodeBuilder(run.view), {"MaxPool": max_pool_gradient}
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
        return _Slopes(TensorProbe(copy, by_tensor.values(), run.name), run.feed, by_tensor, no_class), why
    return None, why


def _unblinded(run: _Run, layers: tuple[SpatialLayer, ...], slopes: Mapping[str, Array]) -> tuple[SpatialLayer, ...]:
    """Exclude layers whose evidence is zero by construction."""
    usable = tuple(
        layer
        for layer in layers
        if layer.tensor not in slopes or not is_blind(layer.grid, run.values[layer.tensor], slopes[layer.tensor])
    )
    if usable:
        return usable
    raise HeadNotSupported(
        f"the layer attribution of {run.name} cannot be computed: it needs activations with spatial positions, as "
        "planes or patch tokens, on every path to the logits, and its graph has none. Its predictions, its own map "
        "and its layers are reported nevertheless."
    )


def _by_blanking(run: _Run, layer: SpatialLayer, explained: int) -> Attribution:
    activations = run.values[layer.tensor]
    edited, _ = with_edited_features(run.model, layer.tensor, run.logits, activations, without_rounding=False)
    probe = TensorProbe(edited, [run.logits], run.name)
    nothing = np.zeros([1] * activations.ndim, activations.dtype)

    def logit(mask: Array) -> float:
        edits = {FEATURES: activations, MASK: mask.astype(activations.dtype), DELTA: nothing}
        return float(probe(dict(run.feed) | edits)[run.logits].reshape(-1)[explained])

    return by_ablation(layer.grid, activations, logit)

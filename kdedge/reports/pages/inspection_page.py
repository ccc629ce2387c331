"""Model inspection page: the attribution of a prediction, the classifier weights, and the layers."""

from importlib.resources import files
from pathlib import Path

import numpy as np

from kdedge import __version__
from kdedge.pipelines.model_inspection import ImageInspection, ModelInspection
from kdedge.reports.pages.decision_figure import decision_drawing
from kdedge.reports.pages.structure_figure import structure_svg
from kdedge_export.html.shell import shell
from kdedge_export.html.text import escape, large, megabytes
from kdedge_export.inspection.class_weights import ClassWeights
from kdedge_export.inspection.layer_attribution import Channel
from kdedge_export.inspection.structure import GraphLayer
from kdedge_runtime.util.files import atomic_write

__all__ = ["decision_page", "inspection_page", "write_inspection"]

_WEIGHT_ROWS = 16
_TOP_FEATURES = 6


def write_inspection(inspected: ModelInspection, path: Path) -> None:
    """Write the page atomically."""
    atomic_write(path, inspection_page(inspected))


def inspection_page(inspected: ModelInspection) -> str:
    """Render the complete page as HTML, without scripts or external resources."""
    seen = inspected.seen
    head = _prediction(seen, inspected.path.name) if seen is not None else _nameplate(inspected)
    parts = [head, _facts(inspected)]
    if seen is not None:
        parts += [_path(seen), _features(seen)]
    parts += [_structure(inspected), "" if seen is not None else _weights(inspected), _layers(inspected), _how(seen)]
    return _page(inspected.path.name if seen is None else f"{seen.name} – {inspected.path.name}", parts)


def decision_page(seen: ImageInspection, model: str) -> str:
    """Render the attribution of one image's prediction as a separate page.

    Args:
        seen: Image and its layer attribution.
        model: Name of the model file.
    """
    return _page(f"{seen.name} – {model}", [_prediction(seen, model), _path(seen), _features(seen), _how(seen)])


def _page(title: str, parts: list[str]) -> str:
    foot = f"<footer><p>kdedge {__version__}</p></footer>"
    style = files("kdedge.reports.pages").joinpath("inspection.css").read_text("utf-8")
    return shell(f"{title} – kdedge", "".join(parts) + foot, style)


def _prediction(seen: ImageInspection, model: str) -> str:
    decision = seen.decision
    index, share = decision.ranking[0]
    others = ", ".join(f"{escape(seen.labels[k])} ({100 * p:.1f} %)" for k, p in decision.ranking[1:3])
    explained = seen.labels[decision.explained_class]
    what = "" if decision.explained_class == index else f" The maps explain <b>{escape(explained)}</b>."
    return (
        f'<header class="neutral"><p class="meta">{escape(model)} · {escape(seen.name)}</p>'
        f"<h1>{escape(seen.labels[index])}, {100 * share:.1f} %</h1>"
        f'<p class="summary">Followed by {others}.{what}</p></header>'
    )


def _nameplate(inspected: ModelInspection) -> str:
    size = inspected.structure.inputs[0][2]
    shape = " × ".join("?" if side is None else str(side) for side in size[1:])
    return (
        f'<header class="neutral"><p class="meta">{escape(inspected.structure.inputs[0][0])} {shape}</p>'
        f"<h1>{escape(inspected.path.name)}</h1>"
        f'<p class="summary">Classifier with {len(inspected.labels)} classes and '
        f"{len(inspected.structure.layers)} operators.</p></header>"
    )


def _facts(inspected: ModelInspection) -> str:
    structure, times = inspected.structure, inspected.times
    facts = (
        (megabytes(inspected.bytes), "file"),
        (large(structure.parameters), "parameters"),
        (large(structure.macs), "multiply-accumulates per image"),
        (
            f"{times.whole_ms:.1f} ms",
            "per image, one thread of this machine, profiled"
            + (", while the machine was busy" if times.is_busy else ""),
        ),
    )
    return '<ul class="facts">' + "".join(f"<li><b>{value}</b>{name}</li>" for value, name in facts) + "</ul>"


def _path(seen: ImageInspection) -> str:
    blanked = [stage for stage in seen.decision.stages if stage.why_blanked is not None]
    note = ""
    if blanked:
        named = ", ".join(sorted({str(stage.why_blanked) for stage in blanked}))
        note = (
            f" After the marked stages, {escape(named)} is not differentiable here. Their attribution is the drop of "
            "the logit when blocks of positions and the most active channels are set to zero, one at a time."
        )
    one_size = len({stage.positions for stage in seen.decision.stages}) == 1
    title, earlier = (
        ("Attribution from the last layers to the first", "earlier ones, at the same resolution")
        if one_size
        else ("Attribution from coarse to fine", "finer ones, with more detail")
    )
    return (
        f"<h2>{title}</h2>"
        f'<p class="lead">Attribution to '
        f"<b>{escape(seen.labels[seen.decision.explained_class])}</b> at each stage, from the last stage back to "
        f"{earlier}. Below each map are its strongest channels with their shares. "
        '<span class="key"><b class="for">Magenta</b> positions support the class, <b class="against">blue</b> ones '
        f"oppose it.</span>{note}</p>"
        f'<div class="wide">{decision_drawing(seen).svg(standalone=False)}</div>'
    )


def _features(seen: ImageInspection) -> str:
    decision = seen.decision
    if not decision.features_by_class:
        return ""
    most = max(item.share for row in decision.features_by_class.values() for item in row)
    shares = dict(decision.ranking)
    rows = "".join(
        f'<tr><th scope="row">{escape(seen.labels[index])}</th><td class="sure">{_percent(shares.get(index))}</td>'
        + "".join(_feature(item, most) for item in items)
        + "</tr>"
        for index, items in decision.features_by_class.items()
    )
    return (
        "<h2>Channel contributions per class</h2>"
        '<p class="lead">Channels of the last stage by their share |c<sub>i</sub>| ∕ Σ<sub>j</sub> |c<sub>j</sub>| of '
        "each class’s logit for this image. c is gradient times activation; with only global average pooling and a "
        "dense layer after the stage, c is activation times weight.</p>"
        f'<div class="scroll"><table class="features"><tbody>{rows}</tbody></table></div>'
    )


def _feature(item: Channel, most: float) -> str:
    kind, sign = ("pos", "+") if item.evidence >= 0 else ("neg", "−")
    return (
        f'<td class="{kind}" style="--part:{item.share / most:.3f}" title="{item.evidence:+.3g} of the logit">'
        f"<span>{item.index} {sign}{100 * item.share:.1f} %</span><i></i></td>"
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _structure(inspected: ModelInspection) -> str:
    figure = structure_svg(inspected.structure, inspected.times)
    return (
        "<h2>Compute and latency per layer</h2>"
        '<p class="lead">Layers from the input to the logits: multiply-accumulates above the line, latency below it. '
        "Latency is the fastest of 15 runs on one thread of this machine, from onnxruntime’s profiler. An activation "
        f'fused into its convolution has no separate latency.</p><div class="wide">{figure}</div>'
    )


def _weights(inspected: ModelInspection) -> str:
    weights = inspected.weights
    if weights is None:
        return ""
    half = weights.features_for(0.5)
    order = np.argsort(half, kind="stable")[:_WEIGHT_ROWS]
    most = float(weights.shares[order].max())
    rows = "".join(_weight_row(int(index), int(half[index]), weights, inspected.labels, most) for index in order)
    count = weights.shares.shape[1]
    return (
        "<h2>Classifier weights</h2>"
        f'<p class="lead">Share |w<sub>i</sub>| ∕ Σ<sub>j</sub> |w<sub>j</sub>| of {count} features in each class’s '
        f"row of {escape(weights.layer)}, for the {len(order)} classes with the most concentrated weights. The first "
        "number is the count of features that hold half of the weight. Pass an image to see their contributions.</p>"
        f'<div class="scroll"><table class="features"><tbody>{rows}</tbody></table></div>'
    )


def _weight_row(index: int, half: int, weights: ClassWeights, labels: tuple[str, ...], most: float) -> str:
    top = np.argsort(-weights.shares[index], kind="stable")[:_TOP_FEATURES]
    empty = np.zeros((1, 1), dtype=np.float32)
    positions = "".join(
        _feature(Channel(int(k), float(weights.weights[index, k]), float(weights.shares[index, k]), empty), most)
        for k in top
    )
    return f'<tr><th scope="row">{escape(labels[index])}</th><td class="sure">{half}</td>{positions}</tr>'


def _layers(inspected: ModelInspection) -> str:
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("layer", "operator", "output", "parameters", "MMACs", "ms")
    )
    rows = "".join(_layer(layer, inspected.times.by_layer_ms.get(layer.name)) for layer in inspected.structure.layers)
    other = inspected.times.other_ms
    return (
        f"<h2>Layers</h2><details><summary>All {len(inspected.structure.layers)} operators</summary>"
        f'<div class="scroll"><table class="layers"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"<p>Operators inserted by onnxruntime, such as memory layout changes, take another {other:.2f} ms.</p>"
        "</details>"
    )


def _layer(layer: GraphLayer, ms: float | None) -> str:
    shape = " × ".join("?" if size is None else str(size) for size in layer.shape)
    positions = (
        layer.op_type,
        shape,
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.macs / 1e6:.2f}" if layer.macs else "",
        "" if ms is None else f"{ms:.3f}",
    )
    return (
        f'<tr><th scope="row">{escape(layer.name)}</th>'
        + "".join(f"<td>{position}</td>" for position in positions)
        + "</tr>"
    )


def _how(seen: ImageInspection | None) -> str:
    if seen is None:
        return ""
    attends = any(stage.attention is not None for stage in seen.decision.stages)
    attention = (
        (
            "<dt>attention</dt><dd>In a vision transformer, a stage is the input of an attention block: the tokens "
            "after its norm. All information from patches passes through the last stage. An earlier stage covers what "
            "its attention reads, not the residual path. Before a norm, gradient times activation is uninformative, "
            "because the norm removes the scale of a token.</dd>"
            "<dt>non-patch tokens</dt><dd>A class token or register has no spatial position. Its share is relative "
            "to the sum of |attribution| over all tokens; maps and channels cover the patches only.</dd>"
        )
        if attends
        else ""
    )
    return (
        "<h2>How to read this page</h2><dl>"
        "<dt>attribution</dt><dd>Gradient times activation: the part of the logit that a position or channel accounts "
        "for, to first order (HiResCAM, Draelos and Carin 2020). It is computed in the file’s own graph, quantized or "
        f"not, with a straight-through gradient for rounding.</dd>{attention}"
        "<dt>the last stage</dt><dd>If global average pooling and dense layers follow, its map is Grad-CAM, equal to "
        "the file’s <code>saliency_map</code>.</dd>"
        "<dt>finer and earlier stages</dt><dd>They are less selective: textures and edges of other objects appear, and "
        "high-resolution maps are noisier. Values above the 99th percentile are clipped. Where they agree with the "
        "last stage, the prediction rests on that region.</dd>"
        "<dt>share</dt><dd>|c| of a channel over the sum of |c| of all channels of its stage.</dd></dl>"
    )

"""Tables on how the int8 file was quantized and what it preserved, from its metadata."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from kdedge_export.html.text import correlation, escape, percent, quantity
from kdedge_export.validation.page.html_table import grid
from kdedge_export.validation.report import ValidationReport
from kdedge_runtime.int8_arithmetic import Arithmetic

__all__ = ["quantization"]

_LEAD = (
    "Measured at export, on training images not used for calibration. Loss is half the relative squared error of the "
    "logits, plus one minus the maps’ correlation."
)
_WAYS = {
    "minmax": "from the smallest to the largest observed value",
    "percentile-99.999": "covering 99.999 % of the observed values",
    "percentile-99.99": "covering 99.99 % of the observed values",
    "entropy": "by minimum relative entropy",
    "trained": "from quantization-aware training",
}
_KEPT_HEADS = (
    ("On held-out images", "training images not used for calibration"),
    ("Layers in fp32", "number of layers of the network’s body"),
    ("Top-1", "accuracy"),
    ("Agreement", "fraction of images with the fp32 file’s prediction"),
    ("Pearson", "mean correlation of the maps with the fp32 file’s"),
    ("Loss", "half the relative squared error of the logits, plus one minus the maps’ correlation"),
)


def quantization(report: ValidationReport) -> str:
    """Render the section on the int8 file; empty without one or without metadata."""
    facts = report.models.get("int8")
    if facts is None or not facts.quantization:
        return ""
    note = facts.quantization
    facts_of_note = [*_facts(note), *_arithmetic(facts.arithmetic)]
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{words}</td></tr>' for name, words in facts_of_note)
    kept = "".join((_ways(note), _kept(note)))
    lead = f'<p class="lead">{_LEAD}</p>' if kept else ""
    return f'<section><h2>Quantization</h2><table class="facts">{rows}</table>{lead}{kept}</section>'


def _facts(note: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and HTML of each metadata entry."""
    if "activations" in note:
        yield "Activations", f"{escape(str(note['activations']))}, one range per tensor"
    if "reduce_range" in note:
        bits = (
            "7 bits, for identical results on processors without VNNI"
            if note["reduce_range"]
            else "8 bits, for processors whose integer kernels do not saturate"
        )
        each = "one scale per output channel" if note.get("per_channel") else "one scale per layer"
        yield "Weights", f"{escape(str(note.get('weights', 'int8')))} of {bits}; {each}"
    if "calibration" in note:
        way, images = str(note["calibration"]), escape(str(note.get("calibration_images", "?")))
        yield "Ranges", f"{escape(_WAYS.get(way, way))}, on {images} training images"
    if "float_layers" in note:
        layers = note["float_layers"]
        names = ", ".join(f"<code>{escape(str(name))}</code>" for name in layers)
        yield "In fp32", "the map and small dense layers" + (f", and {len(layers)} layers: {names}" if layers else "")
    if asked := _goal(note.get("goal") or {}):
        yield "Target", asked
    if note.get("qat"):
        yield "Quantization-aware training", _training(note["qat"])
    if "device" in note:
        yield "Target device", escape(str(note["device"]))


def _arithmetic(found: Arithmetic | None) -> Iterator[tuple[str, str]]:
    """Yield the arithmetic of all results on this page except latency and memory."""
    if found == "exact sums":
        yield (
            "Evaluated with",
            "exact sums, as computed by kernels that do not saturate; latency measured with this machine’s kernels",
        )
    elif found == "machine kernels":
        yield "Evaluated with", "the integer kernels of this machine"


def _goal(goal: Mapping[str, Any]) -> str:
    asked = []
    if goal.get("min_map_correlation") is not None:
        asked.append(f"map correlation of {goal['min_map_correlation']:g} or more")
    if goal.get("max_drop") is not None:
        asked.append(f"top-1 drop of at most {goal['max_drop']:g} points")
    return " and ".join(asked)


def _training(qat: Mapping[str, Any]) -> str:
    came = (
        "used in this file, since it preserves more"
        if qat.get("taken")
        else "not used in this file, since it preserves less"
    )
    return f"{escape(str(qat.get('epochs', '?')))} epochs with simulated int8 (--qat): {came}"


def _ways(note: Mapping[str, Any]) -> str:
    """Render the loss of each calibration method with all layers in int8."""
    losses = note.get("calibration_loss")
    if not losses:
        return ""
    rows = [
        [escape(_WAYS.get(way, way)), quantity(float(loss), 4), "chosen" if way == note.get("calibration") else ""]
        for way, loss in sorted(losses.items(), key=lambda item: float(item[1]))
    ]
    heads = (("Activation range", "values beyond it are clipped"), _KEPT_HEADS[-1], ("", ""))
    return grid(heads, rows, "narrow")


def _kept(note: Mapping[str, Any]) -> str:
    """Render the results on held-out images: of this file, or before and after QAT."""
    qat, held_out = note.get("qat") or {}, note.get("held_out") or {}
    if qat.get("before") and qat.get("after"):
        names = ("post-training", "after quantization-aware training")
        marks = ("", " (this file)") if qat.get("taken") else (" (this file)", "")
        rows = [
            _row(f"{name}{mark}", qat[key], qat[key].get("float_layers"))
            for name, mark, key in zip(names, marks, ("before", "after"), strict=True)
        ]
    elif held_out:
        rows = [_row("this file", held_out, len(note.get("float_layers", ())))]
    else:
        return ""
    images = f"On {escape(str(held_out['images']))} of them" if "images" in held_out else _KEPT_HEADS[0][0]
    return grid(((images, _KEPT_HEADS[0][1]), *_KEPT_HEADS[1:]), rows)


def _row(name: str, found: Mapping[str, Any], float_layers: int | None) -> list[str]:
    return [
        name,
        "" if float_layers is None else escape(str(float_layers)),
        percent(found.get("top1")),
        percent(found.get("agreement")),
        correlation(found.get("map_pearson")),
        quantity(float(found.get("loss", math.nan)), 4),
    ]

"""How the int8 file was made and what it kept at that, as its metadata tells: in words and tables."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from kdedge_export.html.text import correlation, escape, percent, quantity
from kdedge_export.validate.page.html_table import grid
from kdedge_export.validate.report import ValidationReport
from kdedge_runtime.int8_arithmetic import Arithmetic

__all__ = ["quantization"]

_LEAD = (
    "At export, on training images that were not calibrated on. Loss is half the relative squared error of the logits, "
    "and what the maps’ correlation lacks of 1."
)
_WAYS = {
    "minmax": "from the smallest to the largest value seen",
    "percentile-99.999": "around 99.999 % of the values seen",
    "percentile-99.99": "around 99.99 % of the values seen",
    "entropy": "by least relative entropy",
    "trained": "those that it was trained in",
}
_KEPT_HEADS = (
    ("On held-out images", "training images that were not calibrated on"),
    ("Layers in float", "of the network’s body"),
    ("Top-1", "share of right answers"),
    ("Agreement", "share of images with the fp32 file’s answer"),
    ("Pearson", "mean correlation of the maps with the fp32 file’s"),
    ("Loss", "half the relative squared error of the logits, and what the maps’ correlation lacks of 1"),
)


def quantization(report: ValidationReport) -> str:
    """The section on the int8 file; nothing where there is none, or where its metadata tells nothing."""
    facts = report.models.get("int8")
    if facts is None or not facts.quantization:
        return ""
    note = facts.quantization
    facts_of_note = [*_facts(note), *_arithmetic(facts.arithmetic)]
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{words}</td></tr>' for name, words in facts_of_note)
    kept = "".join((_ways(note), _kept(note)))
    lead = f'<p class="lead">{_LEAD}</p>' if kept else ""
    return f'<section><h2>How it was quantized</h2><table class="facts">{rows}</table>{lead}{kept}</section>'


def _facts(note: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and HTML of all that the metadata says."""
    if "activations" in note:
        yield "Activations", f"{escape(str(note['activations']))}, a range for each tensor"
    if "reduce_range" in note:
        bits = (
            "7 bits, so that processors without VNNI compute the same"
            if note["reduce_range"]
            else "8 bits, for processors whose integer kernels do not saturate"
        )
        each = "a scale for each output channel" if note.get("per_channel") else "a scale for each layer"
        yield "Weights", f"{escape(str(note.get('weights', 'int8')))} of {bits}; {each}"
    if "calibration" in note:
        way, images = str(note["calibration"]), escape(str(note.get("calibration_images", "?")))
        yield "Ranges", f"{escape(_WAYS.get(way, way))}, on {images} training images"
    if "float_layers" in note:
        layers = note["float_layers"]
        names = ", ".join(f"<code>{escape(str(name))}</code>" for name in layers)
        yield "In float", "the map and small dense layers" + (f", and {len(layers)} layers: {names}" if layers else "")
    if asked := _goal(note.get("goal") or {}):
        yield "Asked for", asked
    if note.get("qat"):
        yield "Trained on", _training(note["qat"])
    if "device" in note:
        yield "Made for", escape(str(note["device"]))


def _arithmetic(found: Arithmetic | None) -> Iterator[tuple[str, str]]:
    """The arithmetic of all figures on this page but latency and memory."""
    if found == "exact sums":
        yield "Judged with", "exact sums, as kernels that do not saturate compute; timed with those of this machine"
    elif found == "machine kernels":
        yield "Judged with", "the integer kernels of this machine"


def _goal(goal: Mapping[str, Any]) -> str:
    asked = []
    if goal.get("keep_heatmaps") is not None:
        asked.append(f"maps that correlate at {goal['keep_heatmaps']:g} or more")
    if goal.get("max_drop") is not None:
        asked.append(f"at most {goal['max_drop']:g} points of top-1 lost")
    return " and ".join(asked)


def _training(qat: Mapping[str, Any]) -> str:
    came = (
        "it keeps more, and is this file"
        if qat.get("taken")
        else "it keeps less, so this file is of the weights as they were"
    )
    return f"for {escape(str(qat.get('epochs', '?')))} epochs with int8’s errors (--qat): {came}"


def _ways(note: Mapping[str, Any]) -> str:
    """What each way of choosing ranges loses with all layers in int8."""
    losses = note.get("calibration_loss")
    if not losses:
        return ""
    rows = [
        [escape(_WAYS.get(way, way)), quantity(float(loss), 4), "chosen" if way == note.get("calibration") else ""]
        for way, loss in sorted(losses.items(), key=lambda item: float(item[1]))
    ]
    heads = (("Range of a tensor", "values beyond it are clipped"), _KEPT_HEADS[-1], ("", ""))
    return grid(heads, rows, "narrow")


def _kept(note: Mapping[str, Any]) -> str:
    """What is kept on held-out images: of this file, or before and after it was trained on."""
    qat, held_out = note.get("qat") or {}, note.get("held_out") or {}
    if qat.get("before") and qat.get("after"):
        names = ("as it was", "trained on with int8’s errors")
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

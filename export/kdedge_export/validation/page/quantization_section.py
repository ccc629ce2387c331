"""Description of how each file was converted and what it preserved, from its metadata."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kdedge_export.validation.model_facts import ModelFacts
from kdedge_export.validation.report import ValidationReport
from kdedge_runtime.int8_arithmetic import Arithmetic

__all__ = ["HeldOutResult", "QuantizationSection", "quantization_sections"]

_WAYS = {
    "minmax": "from the smallest to the largest observed value",
    "percentile-99.999": "covering 99.999% of the observed values",
    "percentile-99.99": "covering 99.99% of the observed values",
    "entropy": "by minimum relative entropy",
    "trained": "from quantization-aware training",
}

_Fact: TypeAlias = tuple[str, str, tuple[str, ...]]


@dataclass(frozen=True)
class HeldOutResult:
    """Fidelity of a file on held-out samples, as recorded in its metadata."""

    name: str
    found: Mapping[str, Any]
    float_layers: Any
    """Number of layers in fp32, or "" if unknown."""

    @property
    def loss(self) -> float:
        """Combined loss of logits and maps; NaN if unknown."""
        return float(self.found.get("loss", math.nan))


@dataclass(frozen=True)
class QuantizationSection:
    """Contents of the section on one file."""

    title: str
    """Heading, such as `Quantization: ONNX, int8`."""
    facts: tuple[_Fact, ...]
    """Name, description and layer names of each metadata entry."""
    losses: tuple[tuple[str, float, bool], ...]
    """Description and loss of each calibration method with all layers quantized, best first, and True if chosen."""
    results: tuple[HeldOutResult, ...]
    samples: str
    """Heading of the results, with the number of held-out samples."""


def quantization_sections(report: ValidationReport) -> list[QuantizationSection]:
    """Collect the contents from the metadata of every file that has a quantization entry."""
    return [
        _section(candidate.title, facts, facts.quantization)
        for candidate in report.candidates
        if (facts := report.models[candidate.name]).quantization
    ]


def _section(title: str, facts: ModelFacts, note: Mapping[str, Any]) -> QuantizationSection:
    held_out = note.get("held_out") or {}
    return QuantizationSection(
        title=f"Quantization: {title}",
        facts=(*_facts(note), *_arithmetic(facts.arithmetic)),
        losses=tuple(
            (_WAYS.get(way, way), float(loss), way == note.get("calibration"))
            for way, loss in sorted((note.get("calibration_loss") or {}).items(), key=lambda item: float(item[1]))
        ),
        results=tuple(_results(note, held_out)),
        samples=f"On {held_out['samples']} of them" if "samples" in held_out else "On held-out samples",
    )


def _facts(note: Mapping[str, Any]) -> Iterator[_Fact]:
    """Yield name, description and layer names of each metadata entry."""
    dense_only = note.get("format") == "weights"
    if "activations" in note:
        yield "Activations", f"{note['activations']}{'' if dense_only else ', one range per tensor'}", ()
    if "reduce_range" in note:
        bits = (
            "7 bits, for identical results on processors without VNNI"
            if note["reduce_range"]
            else "8 bits, for processors whose integer kernels do not saturate"
        )
        each = "one scale per output channel" if note.get("per_channel") else "one scale per layer"
        which = " of dense layers," if dense_only else ""
        yield "Weights", f"{note.get('weights', 'integers')}{which} of {bits}; {each}", ()
    if "calibration" in note:
        way, samples = str(note["calibration"]), str(note.get("calibration_samples", "?"))
        yield "Ranges", f"{_WAYS.get(way, way)}, on {samples} training samples", ()
    if dense_only:
        yield "In fp32", "everything but the weights of dense layers", ()
    elif "float_layers" in note:
        layers = note["float_layers"]
        small = "small dense layers" if "calibration" in note else "the last layer"
        words = f"the map and {small}" + (f", and {len(layers)} layers" if layers else "")
        yield "In fp32", words, tuple(str(name) for name in layers)
    if goals := _goal(note.get("goal") or {}):
        yield "Target", goals, ()
    if "device" in note:
        yield "Target device", str(note["device"]), ()


def _arithmetic(found: Arithmetic | None) -> Iterator[_Fact]:
    """Yield the arithmetic of all results on this page except latency and memory."""
    if found == "exact sums":
        yield (
            "Evaluated with",
            "exact sums, as computed by kernels that do not saturate; latency measured with this machine’s kernels",
            (),
        )
    elif found == "machine kernels":
        yield "Evaluated with", "the integer kernels of this machine", ()


def _goal(goal: Mapping[str, Any]) -> str:
    goals = []
    if goal.get("min_map_correlation") is not None:
        goals.append(f"map correlation of {goal['min_map_correlation']:g} or more")
    if goal.get("max_drop") is not None:
        goals.append(f"top-1 drop of at most {goal['max_drop']:g} points")
    return " and ".join(goals)


def _results(note: Mapping[str, Any], held_out: Mapping[str, Any]) -> Iterator[HeldOutResult]:
    """Yield the results of this file on held-out samples, if there are any."""
    if held_out:
        yield HeldOutResult("this file", held_out, len(note.get("float_layers", ())))

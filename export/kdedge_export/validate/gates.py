"""Bounds that an exported model must keep, and the verdict on each.

The burden of proof is the model's. A figure that stands for all pictures but was measured on some has an interval, and
a bound is kept where the interval's unfavourable end keeps it: then it is *shown*. Where the figure keeps the bound and
the end does not, these images are too few to tell: that is *not shown*, and does not pass. Of models that break a bound
at most 1 in 40 is shown to keep it (see `intervals`), in one validation: changing a model and validating again until it
passes finds a lucky draw more often. What must be exactly so on every image (an export changes
nothing) or says something of the model and not of pictures (a file's size) is judged by itself. What a file keeps of
the student's answers and maps is judged in `kept`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from kdedge_export.candidates import Role
from kdedge_export.metrics.faithfulness import FAITH_IMAGES, FEWEST_FAITH_IMAGES, MOST_MARGIN, Faithfulness
from kdedge_export.metrics.sanity import SANE_IMAGES, WITHOUT_CLASS, Sanity, Test
from kdedge_export.validate.check import Check, Sample, Unit, judge, judge_sample
from kdedge_export.validate.float_tolerance import CEILING
from kdedge_export.validate.footprint import Footprint
from kdedge_runtime.devices import Budgets
from kdedge_runtime.metadata import ImageInput

__all__ = [
    "NO_STUDENT",
    "Gates",
    "check_budgets",
    "check_faithfulness",
    "check_input",
    "check_labels",
    "check_sanity",
    "check_unchanged",
]

NO_STUDENT = "there is no PyTorch model to compare with"
"""Reason of the checks that do not apply to a file of another framework."""
_TESTS: dict[Test, str] = {"class": "another class", "picture": "another picture", "head": "a random head"}


@dataclass(frozen=True)
class Gates:
    """The least that an exported model must keep of its reference (`kdedge_export.candidates.reference`)."""

    fp32_agreement: float = 1.0
    """Share of images in [0, 1] on which the fp32 file gives the student's answer, up to ties by rounding: an export
    changes nothing."""
    fp32_map_error: float = 1e-4
    """Largest error of any map cell, in units of the range of that image's map."""
    fp32_logits_error: float = 1e-4
    """Largest error of any logit, in units of the range of that image's logits."""
    fp32_kl: float = 1e-4
    """Largest KL divergence of any image's softmax from the student's, in nats."""
    fp32_rounding: float = CEILING
    """Largest error that float32 rounding of an image's logits or map may explain."""
    int8_top1_drop_points: float = 1.0
    """Accuracy that int8 may cost, in percentage points."""
    int8_agreement: float = 0.90
    """Share of images in [0, 1] with the student's answer; asked only where no labels tell the accuracy."""
    int8_kl: float = 0.1
    """Mean KL divergence of the softmax from the student's, in nats; an image counts at most 1."""
    int8_logits_distance: float = 0.15
    """Mean distance of the logits from the student's (`metrics.distance`): 0.15 is an error of 35 % of their size."""
    int8_map_pearson_mean: float = 0.98
    int8_map_pearson_p5: float = 0.90
    """The 5th percentile over images: a good mean may not hide a bad tail."""
    int8_map_scale_error: float = 0.1
    """Mean share in [0, 1] by which a map is too small or too large (`metrics.scale_error`)."""
    int8_other_map_pearson: float = 0.9
    """Mean correlation of maps of other classes than the top one; a graph that mixes classes up is far below."""
    map_margin: float = 0.0
    """By how much what a map points at must move the answer more than a random map's does (`Faithfulness.margin`)."""
    map_stays: float = 0.98
    """How much of a map's shape, in [0, 1], may stay when the class, the picture or the head's weights change. Of sound
    models up to 0.91 stays (Grad-CAM++ and LayerCAM under random heads); of a spot under 2 % of noise, 0.995."""


def check_labels(role: Role, expected: Sequence[str] | None, labels: Sequence[str]) -> Check:
    """Judge the class names inside a model file: each at its place, or right answers get wrong names.

    Args:
        role: of the file.
        expected: names in the order of the reference's logits; None where there is no reference.
        labels: names in the order of the file's.
    """
    key, name = f"{role}_labels", f"{role} labels in their places"
    if expected is None:
        return Check(key, name, None, ">=", 1.0, "share", "not applicable", reason=NO_STUDENT)
    pairs = list(zip_longest(expected, labels))
    odd = next((f"class {place} is {b!r}, trained as {a!r}" for place, (a, b) in enumerate(pairs) if a != b), None)
    share = sum(a == b for a, b in pairs) / max(len(pairs), 1)
    return judge(key, name, share, ">=", 1.0, "share", odd)


def check_input(role: Role, expected: ImageInput | None, stated: ImageInput) -> Check:
    """Judge what a model file says of its input: the size, resizing and normalising that the student was trained with.

    A device brings pictures to size as the file says. Another rule than in training costs accuracy without an error.

    Args:
        role: of the file.
        expected: the reference's input; None where there is no reference.
        stated: the file's.
    """
    key, name = f"{role}_input", f"{role} input described as expected"
    if expected is None:
        return Check(key, name, None, ">=", 1.0, "share", "not applicable", reason=NO_STUDENT)
    trained, found = vars(expected), vars(stated)
    odd = [
        f"{name} is {found[name]!r}, trained with {value!r}" for name, value in trained.items() if found[name] != value
    ]
    return judge(key, name, 1 - len(odd) / len(trained), ">=", 1.0, "share", "; ".join(odd) or None)


def check_sanity(row: Sanity, images: int, method: str, gates: Gates) -> Check:
    """Judge whether a model's maps, made by this method, follow a change.

    Args:
        row: what the change did.
        images: on so many.
        method: one of `kdedge_export.saliency.METHODS`; some explain no class, and are held against pictures only.
        gates: the bounds.
    """
    key, name = _named(row.role, row.test)
    if method in WITHOUT_CLASS and row.test != "picture":
        return judge(key, name, None, "<=", gates.map_stays, "correlation", f"{method} explains no class in particular")
    alike = Sample(row.alike, row.intervals["alike"], images, images, worst=1.0, most=SANE_IMAGES)
    return judge_sample(key, name, alike, "<=", gates.map_stays, "correlation")


def check_unchanged(role: Role, test: Literal["class", "picture"], gates: Gates) -> Check:
    """Return the check of a change that could not be made, since there is only one class or one image."""
    key, name = _named(role, test)
    if test == "class":
        return judge(key, name, None, "<=", gates.map_stays, "correlation", "there is no other class")
    reason = "with 1 image; it takes 2 at least"
    return Check(key, name, None, "<=", gates.map_stays, "correlation", "not shown", images_needed=2, reason=reason)


def check_faithfulness(role: Role, margin: Faithfulness, images: int, gates: Gates) -> tuple[Check, ...]:
    """Judge whether the shipped file's answer rests on what its map points at; nothing to judge by on few images.

    A map that is wrong before the export is kept by it, and every comparison with the student passes.

    Args:
        role: of the file that ships.
        margin: of its maps.
        images: on so many.
        gates: the bounds.
    """
    if images < FEWEST_FAITH_IMAGES:
        return ()
    interval = margin.intervals["margin"]
    sample = Sample(margin.margin, interval, images, images, worst=-MOST_MARGIN, most=FAITH_IMAGES)
    name = f"{role} map more faithful than a random one"
    return (judge_sample(f"{role}_map_margin", name, sample, ">=", gates.map_margin, "area"),)


def check_budgets(role: Role, footprint: Footprint, budgets: Budgets) -> tuple[Check, ...]:
    """Judge what a model file takes by what its device allows; only what the device limits.

    Args:
        role: of the file.
        footprint: what it takes: 10^6 bytes, parameters, milliseconds.
        budgets: the most it may take, in the same units; None for what is not limited.
    """
    figures: tuple[tuple[str, str, float | None, float | None, Unit], ...] = (
        ("file_mb", "file size", footprint.file_mb, budgets.file_mb, "MB"),
        ("parameters", "parameters", footprint.parameters, budgets.parameters, "count"),
        ("peak_memory_mb", "peak memory, measured here", footprint.peak_memory_mb, budgets.peak_memory_mb, "MB"),
        ("latency_ms", "latency, measured here", footprint.latency_ms, budgets.latency_ms, "ms"),
    )
    return tuple(
        judge(f"{role}_{key}", f"{role} {name}", measured, "<=", most, unit)
        for key, name, measured, most, unit in figures
        if most is not None
    )


def _named(role: Role, test: Test) -> tuple[str, str]:
    return f"{role}_map_follows_{test}", f"{role} map like that of {_TESTS[test]}"

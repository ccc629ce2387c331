"""Bounds for exported models and their checks.

A value estimated on samples has a confidence interval. Its check passes only if the unfavorable end of the
interval satisfies the bound. If the estimate satisfies the bound but the end does not, the check is inconclusive and
does not pass. At most 1 in 40 models that violate a bound passes its check (see `metrics.confidence`). This
holds for one validation: repeated validation of changed models until one passes raises that rate. Values that must
hold exactly on every sample (export equivalence), or that describe the model (file size), are checked without an
interval.
Checks of predictions and maps against the student are in `fidelity_checks`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal

from kdedge_export.metrics.faithfulness import (
    MAX_FAITHFULNESS_SAMPLES,
    MAX_MARGIN,
    MIN_FAITHFULNESS_SAMPLES,
    Faithfulness,
)
from kdedge_export.metrics.sanity import MAX_SANITY_SAMPLES, Sanity, Test
from kdedge_export.quantization import RECIPES, FidelityBounds
from kdedge_export.validation.check import Check, Estimate, Unit, check_sample, check_value
from kdedge_export.validation.float_tolerance import CEILING
from kdedge_export.validation.footprint import Footprint
from kdedge_runtime.devices import Budgets
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.saliency_methods import SALIENCY_METHODS
from kdedge_runtime.util.counts import counted

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
"""Reason of checks that do not apply to model files from other frameworks."""
_TESTS: dict[Test, str] = {"class": "another class", "sample": "another sample", "head": "a random head"}


@dataclass(frozen=True)
class Gates:
    """Bounds on an exported model relative to its reference (`kdedge_export.candidates.reference`)."""

    fp32_agreement: float = 1.0
    """Minimum fraction of samples in [0, 1] on which the fp32 file predicts the student's class, except for rounding
    ties."""
    fp32_map_error: float = 1e-4
    """Largest map error at any position, relative to the range of that sample's map."""
    fp32_logits_error: float = 1e-4
    """Largest logits error, relative to the range of that sample's logits."""
    fp32_divergence: float = 1e-4
    """Largest divergence of any sample's prediction from the student's, in nats."""
    fp32_rounding: float = CEILING
    """Largest error of a sample's logits or map that float32 rounding may explain."""
    precisions: Mapping[str, FidelityBounds] = field(
        default_factory=lambda: {name: recipe.bounds for name, recipe in RECIPES.items()}
    )
    """Bounds of the other files by precision; the default takes those of the recipes."""
    max_unknown_change_points: float = 3.0
    """Largest change against the fp32 file, in percentage points: of known samples called unknown (rise), and of
    unfamiliar samples detected (drop)."""
    false_alarms_per_hour: float | None = None
    """Largest number of false alarms per hour on background recordings; None for no bound."""
    max_true_accept_drop_points: float = 3.0
    """Largest drop of true accepts at 1% false accepts against the fp32 file, in percentage points; for embeddings."""
    min_gain_over_constant_points: float = 0.0
    """Minimum gain of accuracy over the best constant prediction, in percentage points."""
    max_evidence_outside: float | None = None
    """Largest share of the positive evidence outside annotated regions, in [0, 1]; None checks nothing."""
    completeness: float = 1e-4
    """Largest error of the sum of contributions, relative to the largest difference of logits from the reference; for
    methods that are complete (`SaliencyMethod.is_complete`)."""
    map_margin: float = 0.0
    """Minimum faithfulness margin over random maps (`Faithfulness.margin`)."""
    max_map_similarity: float = 0.98
    """Largest similarity, in [0, 1], of a map before and after its class, sample or head weights change. Sound models
    reach up to 0.91 (Grad-CAM++ and LayerCAM with random heads); a fixed spot with 2% noise scores 0.995."""


def check_labels(role: str, expected: Sequence[str] | None, labels: Sequence[str]) -> Check:
    """Check the order of class names in a model file; wrong order gives correct predictions wrong names.

    Args:
        role: role of the file.
        expected: names in the order of the reference's logits; None without a reference.
        labels: names in the file's order.
    """
    key, name = f"{role}_labels", f"{role} labels in order"
    if expected is None:
        return Check(key, name, None, ">=", 1.0, "share", "not applicable", reason=NO_STUDENT)
    pairs = list(zip_longest(expected, labels))
    odd = next((f"class {place} is {b!r}, trained as {a!r}" for place, (a, b) in enumerate(pairs) if a != b), None)
    share = sum(a == b for a, b in pairs) / max(len(pairs), 1)
    return check_value(key, name, share, ">=", 1.0, "share", odd)


def check_input(role: str, expected: InputSpec | None, stated: InputSpec) -> Check:
    """Check the input specification in a model file, for images size, resizing and normalization: as in training.

    The device preprocesses samples as the file specifies. Preprocessing that differs from training lowers accuracy
    silently.

    Args:
        role: role of the file.
        expected: the reference's input; None without a reference.
        stated: the file's input.
    """
    key, name = f"{role}_input", f"{role} input specification"
    if expected is None:
        return Check(key, name, None, ">=", 1.0, "share", "not applicable", reason=NO_STUDENT)
    trained, found = vars(expected), vars(stated)
    odd = [
        f"{name} is {found[name]!r}, trained with {value!r}" for name, value in trained.items() if found[name] != value
    ]
    return check_value(key, name, 1 - len(odd) / len(trained), ">=", 1.0, "share", "; ".join(odd) or None)


def check_sanity(row: Sanity, samples: int, method: str, gates: Gates) -> Check:
    """Check that a model's maps change with the class, the sample or the head (sanity check).

    Args:
        row: similarity of the maps before and after the change.
        samples: number of samples measured.
        method: a key of `SALIENCY_METHODS`; class-agnostic methods are checked with another sample only.
        gates: the bounds.
    """
    key, name = _named(row.model, row.test)
    known = SALIENCY_METHODS.get(method)  # None for a file without a map
    if known is not None and not known.is_class_specific and row.test != "sample":
        return check_value(
            key, name, None, "<=", gates.max_map_similarity, "correlation", f"{method} is class-agnostic"
        )
    similarity = Estimate(
        row.map_similarity, row.intervals["map_similarity"], samples, samples, worst=1.0, most=MAX_SANITY_SAMPLES
    )
    return check_sample(key, name, similarity, "<=", gates.max_map_similarity, "correlation")


def check_unchanged(role: str, test: Literal["class", "sample"], gates: Gates) -> Check:
    """Return the check of a change that is impossible with a single class or a single sample."""
    key, name = _named(role, test)
    if test == "class":
        return check_value(key, name, None, "<=", gates.max_map_similarity, "correlation", "there is no other class")
    reason = "with 1 sample; at least 2 are needed"
    return Check(
        key, name, None, "<=", gates.max_map_similarity, "correlation", "inconclusive", samples_needed=2, reason=reason
    )


def check_faithfulness(role: str, margin: Faithfulness, samples: int, gates: Gates) -> Check:
    """Check that the deployed file's maps are more faithful than random maps; not measured with too few samples.

    An export preserves a wrong map, so that every comparison with the student passes. This check does not depend on the
    student.

    Args:
        role: role of the deployed file.
        margin: faithfulness of its maps.
        samples: number of samples measured.
        gates: the bounds.
    """
    key, name = f"{role}_map_margin", f"{role} map more faithful than a random map"
    if samples < MIN_FAITHFULNESS_SAMPLES:
        reason = f"with {counted(samples, 'sample')}; at least {MIN_FAITHFULNESS_SAMPLES} are needed"
        return check_value(key, name, None, ">=", gates.map_margin, "area", reason)
    interval = margin.intervals["margin"]
    sample = Estimate(margin.margin, interval, samples, samples, worst=-MAX_MARGIN, most=MAX_FAITHFULNESS_SAMPLES)
    return check_sample(key, name, sample, ">=", gates.map_margin, "area")


def check_budgets(role: str, footprint: Footprint, budgets: Budgets) -> tuple[Check, ...]:
    """Check a model file against its device's budgets; unlimited quantities give no check.

    Args:
        role: role of the file.
        footprint: measured size and cost: 10^6 bytes, parameters, milliseconds.
        budgets: limits in the same units; None if unlimited.
    """
    figures: tuple[tuple[str, str, float | None, float | None, Unit], ...] = (
        ("file_mb", "file size", footprint.file_mb, budgets.file_mb, "MB"),
        ("parameters", "parameters", footprint.parameters, budgets.parameters, "count"),
        ("peak_memory_mb", "peak memory, measured here", footprint.peak_memory_mb, budgets.peak_memory_mb, "MB"),
        ("latency_ms", "latency, measured here", footprint.latency_ms, budgets.latency_ms, "ms"),
    )
    return tuple(
        check_value(f"{role}_{key}", f"{role} {name}", measured, "<=", most, unit)
        for key, name, measured, most, unit in figures
        if most is not None
    )


def _named(role: str, test: Test) -> tuple[str, str]:
    return f"{role}_map_similarity_{test}", f"{role} map similarity to {_TESTS[test]}"

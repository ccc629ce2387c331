"""Group runs that differ only in their seed, and detect runs that are not comparable."""

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kdedge.pipelines.run_history import RunHistory

__all__ = ["SeedGroup", "Spread", "comparability_warnings", "group_by_seed", "spread"]

_NAMES_SHOWN = 4
_PARTS = re.compile(r"\d+|[^\W\d_]+|[\W_]")
"""Splits names into numbers, words and separators."""
_RECORDED_ELSEWHERE = frozenset(
    {"data", "model", "teacher", "teacher_weights", "size", "output_stride", "samples_per_class", "leave_out"}
    | {"group_by", "window", "target", "schema"}
    | {"recipe", "recipe_sha256", "epochs", "batch_size", "lr", "loss", "temperature", "flip", "cache_teacher", "seed"}
    | {"unlabeled", "every_s"}
)
"""Options whose effect is recorded elsewhere, whether set explicitly or by default."""


@dataclass(frozen=True)
class SeedGroup:
    """Runs with the same settings and different seeds."""

    name: str
    """Pattern of the run names, such as `kd-{0,1,2}`."""
    runs: tuple[RunHistory, ...]


@dataclass(frozen=True)
class Spread:
    """Mean and deviation of a metric over the runs of a group."""

    mean: float
    deviation: float | None
    """Sample standard deviation (n - 1); None for a single run."""


def group_by_seed(runs: Sequence[RunHistory]) -> tuple[SeedGroup, ...]:
    """Group runs that differ only in their seed, in order of first appearance.

    An incomplete run forms its own group, since its metrics may still change.
    """
    members: dict[str, list[RunHistory]] = {}
    for run in runs:
        members.setdefault(_settings(run), []).append(run)
    return tuple(SeedGroup(_common_name([run.name for run in group]), tuple(group)) for group in members.values())


def spread(values: Sequence[float | None]) -> Spread | None:
    """Return mean and standard deviation, or None if a run lacks the metric."""
    defined = [value for value in values if value is not None]
    if not defined or len(defined) < len(values):
        return None
    return Spread(statistics.fmean(defined), statistics.stdev(defined) if len(defined) > 1 else None)


def comparability_warnings(runs: Sequence[RunHistory], groups: Sequence[SeedGroup]) -> list[str]:
    """Return warnings about metrics that are not comparable, one sentence each."""
    found = []
    on_samples = _by([(run.samples, run) for run in runs])
    if len(on_samples) > 1:
        sets = "; ".join(
            f"{samples[2]:,} samples of {members[0].data}: {_names(members)}" for samples, members in on_samples.items()
        )
        found.append(
            f"The runs were validated on different samples, so metrics are not comparable between these: {sets}."
        )
    by_teacher = _by([(run.taught_by, run) for run in runs if run.teachers])
    if len(by_teacher) > 1:
        sets = "; ".join(
            f"{' + '.join(teacher.name for teacher in members[0].teachers)}: {_names(members)}"
            for members in by_teacher.values()
        )
        found.append(
            "The runs had different teachers. Agreement and map Pearson refer to a run's own teacher and are not "
            f"comparable between these: {sets}."
        )
    for group in groups:
        seeds = [run.record.recipe["seed"] for run in group.runs]
        if len(set(seeds)) < len(seeds):
            found.append(
                f"Some of {_names(group.runs)} have the same settings and the same seed, so the deviation of "
                f"{group.name} is not a deviation over seeds."
            )
    return found


def _by(pairs: Sequence[tuple[Any, RunHistory]]) -> dict[Any, list[RunHistory]]:
    gathered: dict[Any, list[RunHistory]] = {}
    for key, run in pairs:
        gathered.setdefault(key, []).append(run)
    return gathered


def _settings(run: RunHistory) -> str:
    """Return a key of all settings except the seed; unique for an incomplete run."""
    record = run.record
    if record.result is None:
        return str(run.folder)
    recipe = {name: value for name, value in record.recipe.items() if name != "seed"}
    # Measured loss weights differ slightly between runs.
    measured = recipe.get("measured", ())
    recipe["loss"] = {name: None if name in measured else weight for name, weight in recipe["loss"].items()}
    options = {name: value for name, value in record.request.items() if name not in _RECORDED_ELSEWHERE}
    data = {name: value for name, value in record.data.items() if name != "source"}
    spec = [asdict(record.model), asdict(record.input), record.kind]
    return json.dumps([spec, data, recipe, options, run.taught_by], sort_keys=True)


def _common_name(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    parts = [_PARTS.findall(name) for name in names]
    start, end = _shared(parts), _shared([own[::-1] for own in parts])
    end = min(end, min(map(len, parts)) - start)
    middles = ["".join(own[start : len(own) - end]) for own in parts]
    shown = middles if len(middles) <= _NAMES_SHOWN else [*middles[: _NAMES_SHOWN - 1], "…"]
    return f"{''.join(parts[0][:start])}{{{','.join(shown)}}}{''.join(parts[0][len(parts[0]) - end :])}"


def _shared(sequences: list[list[str]]) -> int:
    """Return the length of the common prefix."""
    columns = zip(*sequences, strict=False)
    return next((index for index, column in enumerate(columns) if len(set(column)) > 1), min(map(len, sequences)))


def _names(runs: Sequence[RunHistory]) -> str:
    more = len(runs) - _NAMES_SHOWN
    return ", ".join(run.name for run in runs[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")

"""Runs that differ in nothing but their seed, and what keeps runs from being comparable."""

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kdedge.pipelines.run_history import RunHistory

__all__ = ["SeedGroup", "Spread", "doubts", "seed_groups", "spread"]

_NAMES_SHOWN = 4
_PARTS = re.compile(r"\d+|[^\W\d_]+|[\W_]")
"""Numbers, words, and what stands between them."""
_TOLD_ELSEWHERE = frozenset(
    {"data", "model", "teacher", "teacher_weights", "size", "output_stride", "images_per_class"}
    | {"recipe", "recipe_sha256", "epochs", "batch_size", "lr", "loss", "temperature", "flip", "cache_teacher", "seed"}
)
"""Options whose effect is in the rest of the record, whether they were given or left to their default."""


@dataclass(frozen=True)
class SeedGroup:
    """Runs with the same settings and different seeds."""

    name: str
    """What their names have in common: `kd-{0,1,2}`."""
    runs: tuple[RunHistory, ...]


@dataclass(frozen=True)
class Spread:
    """A figure over the runs of a group."""

    mean: float
    deviation: float | None
    """Sample standard deviation (of n - 1); None for a single run."""


def seed_groups(runs: Sequence[RunHistory]) -> tuple[SeedGroup, ...]:
    """Put runs that differ only in their seed together, in the order of the first of each.

    A run that is not finished stays alone: its figures will still change.
    """
    members: dict[str, list[RunHistory]] = {}
    for run in runs:
        members.setdefault(_settings(run), []).append(run)
    return tuple(SeedGroup(_common_name([run.name for run in group]), tuple(group)) for group in members.values())


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and standard deviation; None where a run lacks the figure."""
    defined = [value for value in values if value is not None]
    if not defined or len(defined) < len(values):
        return None
    return Spread(statistics.fmean(defined), statistics.stdev(defined) if len(defined) > 1 else None)


def doubts(runs: Sequence[RunHistory], groups: Sequence[SeedGroup]) -> list[str]:
    """Why some figures cannot be held against each other, a sentence each."""
    found = []
    on_pictures = _by([(run.pictures, run) for run in runs])
    if len(on_pictures) > 1:
        sets = "; ".join(
            f"{pictures[2]:,} pictures of {members[0].data}: {_names(members)}"
            for pictures, members in on_pictures.items()
        )
        found.append(
            f"The runs were not validated on the same pictures, so figures cannot be compared across these: {sets}."
        )
    by_teacher = _by([(run.taught_by, run) for run in runs if run.teachers])
    if len(by_teacher) > 1:
        sets = "; ".join(
            f"{' + '.join(teacher.name for teacher in members[0].teachers)}: {_names(members)}"
            for members in by_teacher.values()
        )
        found.append(
            "The runs had different teachers; agreement and map Pearson are with a run's own teacher and cannot be "
            f"compared across these: {sets}."
        )
    for group in groups:
        seeds = [run.record.recipe["seed"] for run in group.runs]
        if len(set(seeds)) < len(seeds):
            found.append(
                f"Some of {_names(group.runs)} have the same settings and the same seed, so the deviation of "
                f"{group.name} is not that of different seeds."
            )
    return found


def _by(pairs: Sequence[tuple[Any, RunHistory]]) -> dict[Any, list[RunHistory]]:
    gathered: dict[Any, list[RunHistory]] = {}
    for key, run in pairs:
        gathered.setdefault(key, []).append(run)
    return gathered


def _settings(run: RunHistory) -> str:
    """Everything but the seed that decides what a run becomes, as a key; unique for a run that is not finished."""
    record = run.record
    if record.result is None:
        return str(run.folder)
    recipe = {name: value for name, value in record.recipe.items() if name != "seed"}
    # Weights that are measured come out a little different every time.
    measured = recipe.get("measured", ())
    recipe["loss"] = {name: None if name in measured else weight for name, weight in recipe["loss"].items()}
    options = {name: value for name, value in record.request.items() if name not in _TOLD_ELSEWHERE}
    data = {name: value for name, value in record.data.items() if name not in ("root", "source")}
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
    """How many first parts all of them have in common."""
    columns = zip(*sequences, strict=False)
    return next((index for index, column in enumerate(columns) if len(set(column)) > 1), min(map(len, sequences)))


def _names(runs: Sequence[RunHistory]) -> str:
    more = len(runs) - _NAMES_SHOWN
    return ", ".join(run.name for run in runs[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")

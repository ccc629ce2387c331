"""Settings of runs as text: shared by all, or differing between runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdedge.models.run_folder import RunRecord
from kdedge.pipelines.run_comparison import RunComparison
from kdedge.pipelines.run_history import RunHistory

__all__ = ["RunSettings", "duration", "run_settings", "shown_loss"]

_SHOWN_ELSEWHERE = frozenset({"epochs", "loss", "seed"})
_OFF = frozenset({"", "0", "no", "none", "unchanged"})
"""Values of settings without effect, which are listed only where runs differ."""
_DIGITS = 8
"""Number of digits of a schema's SHA-256, which distinguishes the few schemas of a comparison."""
_ORDER = (
    "loss",
    "model",
    "teacher",
    "samples",
    "unlabeled",
    "seed",
    "parameters",
    "input",
    "columns",
    "schema",
    "stem",
    "initial weights",
    "device",
)
"""Order of the most important settings; settings of the recipe follow."""


@dataclass(frozen=True)
class RunSettings:
    """Settings as text, split into shared and differing ones."""

    shared: Mapping[str, str]
    """Mapping from name to value, without settings that have no effect."""
    differing: Mapping[str, tuple[str, ...]]
    """Mapping from name to one value per run, in order; empty string if a run lacks the setting."""


def run_settings(comparison: RunComparison) -> RunSettings:
    """Split the settings of runs into shared and differing ones."""
    of_runs = [
        _settings(run, comparison.parameters.get(run.name)) | columns
        for run, columns in zip(comparison.runs, _columns(comparison.runs), strict=True)
    ]
    names = dict.fromkeys([*_ORDER, *(name for settings in of_runs for name in settings)])
    values = {name: tuple(settings.get(name, "") for settings in of_runs) for name in names}
    return RunSettings(
        shared={name: texts[0] for name, texts in values.items() if len(set(texts)) == 1 and texts[0] not in _OFF},
        differing={name: texts for name, texts in values.items() if len(set(texts)) > 1},
    )


def shown_loss(loss: Mapping[str, Any]) -> str:
    """Format a loss in the syntax of `kdedge distill --loss`."""
    return ",".join(f"{name}:{_text(weight)}" for name, weight in loss.items())


def duration(seconds: float) -> str:
    """Format a duration with a suitable unit."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _settings(run: RunHistory, parameters: int | None) -> dict[str, str]:
    record = run.record
    limit, samples = record.data["samples_per_class"], record.data["train"]
    unlabeled = record.data.get("unlabeled") or {"locations": (), "samples": 0}
    labeled = samples - (unlabeled["samples"] if unlabeled["locations"] else 0)
    factor = record.model.stride_factor
    settings = {
        "model": record.model.name,
        "parameters": "" if parameters is None else f"{parameters / 1e6:.2f} M",
        "teacher": " + ".join(teacher.name for teacher in run.teachers) or "none",
        "loss": shown_loss(record.recipe["loss"]),
        "samples": f"all {labeled:,}" if limit is None else f"{limit} per class",
        "unlabeled": f"{samples - labeled:,}" if samples > labeled else "",
        "seed": str(record.recipe["seed"]),
        "device": record.device,
        "input": record.input.summary,
        "schema": (record.data.get("schema") or "")[:_DIGITS],
        "stem": "unchanged" if factor == 1 else f"{factor}× finer",
        "initial weights": _initial_weights(record),
    }
    for name, value in record.recipe.items():
        if name not in _SHOWN_ELSEWHERE:
            settings |= _flat(name.replace("_", " "), value)
    return settings


def _columns(runs: Sequence[RunHistory]) -> list[dict[str, str]]:
    """Return the columns that each model lacks, if the models take different ones."""
    taken = [run.record.input.column_names for run in runs]
    if len({frozenset(names) for names in taken}) == 1 or not all(taken):  # runs of other modalities have none
        return [{} for _ in runs]
    every = dict.fromkeys(name for names in taken for name in names)
    lost = [", ".join(name for name in every if name not in names) for names in taken]
    return [{"columns": f"without {names}" if names else "all"} for names in lost]


def _initial_weights(record: RunRecord) -> str:
    if record.start is None:
        return str(record.request.get("init") or "random")
    return str(record.start["weights"] or record.start["source"])


def _flat(name: str, value: Any) -> dict[str, str]:
    """Convert a setting to text; the members of a nested setting become separate settings."""
    if not isinstance(value, dict):
        return {name: _text(value)}
    parts = (_flat(f"{name} {part.replace('_', ' ')}", own) for part, own in value.items())
    return {key: text for part in parts for key, text in part.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)

"""Validation results as one JSON document with a stable schema.

`report.json` is described by `report.schema.json` next to this module (JSON Schema, draft 2020-12), which ships with
the package: `kdedge_export.validation.json_schema()`. Missing and non-finite numbers are null. Fractions are in
[0, 1], and accuracies are in the unit `accuracy_unit`. An interval is `{low, high}`, 95%, or null.

Later versions may add keys under the same schema number; a key that changes its meaning increments it.
"""

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import onnxruntime

import kdedge_export
from kdedge_export.candidates import origin, reference, shipped
from kdedge_export.metrics.calibration import Calibration
from kdedge_export.metrics.comparison import Comparison
from kdedge_export.metrics.faithfulness import Faithfulness
from kdedge_export.metrics.false_alarms import FalseAlarms
from kdedge_export.metrics.localization import Localization
from kdedge_export.metrics.per_class import ClassRow
from kdedge_export.metrics.robustness import Robustness
from kdedge_export.metrics.sanity import Sanity
from kdedge_export.metrics.task_metrics import TaskWording
from kdedge_export.metrics.unfamiliar import Recognition
from kdedge_export.metrics.verification import Verification
from kdedge_export.validation.check import Check, Unit, applicable, verdict
from kdedge_export.validation.exactness import AlignedSample
from kdedge_export.validation.footprint import Footprint
from kdedge_export.validation.model_facts import ModelFacts
from kdedge_export.validation.sampled_metrics import Sampled
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.devices.detection import machine_name
from kdedge_runtime.util.files import atomic_write

__all__ = ["SCHEMA", "Data", "ValidationReport", "json_schema", "write_json"]

SCHEMA = 7


def _versions() -> dict[str, str]:
    return {
        "kdedge": kdedge_export.__version__,
        "torch": version("torch"),
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
        "machine": machine_name(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Data:
    """Validation data."""

    description: str = ""
    """Human-readable description."""
    fingerprint: str | None = None
    """SHA-256 fingerprint of the dataset, as recorded in training; None if unknown."""
    selected_epoch: bool = False
    """True if the student's best epoch was selected on these samples, which biases its accuracy upwards."""


@dataclass(frozen=True)
class ValidationReport:
    """Results of one validation."""

    data: Data
    samples: int
    has_labels: bool
    candidates: tuple[Candidate, ...]
    """Models: teacher, student, and the files from the most to the least exact, as far as present."""
    models: Mapping[str, ModelFacts]
    """Description of each candidate, by name."""
    comparisons: Mapping[str, Comparison]
    """Comparisons by name of the candidate, each with `kdedge_export.candidates.reference`."""
    checks: tuple[Check, ...]
    aligned: tuple[AlignedSample, ...] = ()
    """Samples whose fp32 map error was computed with moved units; `comparisons` use the unmodified maps."""
    classes: tuple[ClassRow, ...] = ()
    """Per-class results, worst first."""
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    """Calibration by role; empty without labels."""
    sanity: Sampled[tuple[Sanity, ...]] | None = None
    localization: Sampled[dict[str, Localization]] | None = None
    """Localization by role or baseline; None without known object regions."""
    faithfulness: Sampled[dict[str, Faithfulness]] | None = None
    """Faithfulness by role or baseline; None if skipped or without maps."""
    robustness: Sampled[tuple[Robustness, ...]] | None = None
    """Robustness; None if skipped."""
    familiarity: Recognition | None = None
    """Recognition of unfamiliar samples; None if the files have no familiarity."""
    verification: Verification | None = None
    """Verification by embeddings; None without embeddings, or without labels of both kinds of pairs."""
    false_alarms: tuple[FalseAlarms, ...] = ()
    """False alarms of every file on background recordings; empty without recordings."""
    footprints: Mapping[str, Footprint] = field(default_factory=dict)
    device: str | None = None
    """Name of the device profile whose budgets were checked."""
    quick: bool = False
    """True if faithfulness and robustness were skipped."""
    notes: tuple[str, ...] = ()
    """Notes on skipped measurements and their reasons."""
    wording: TaskWording = TaskWording()  # noqa: RUF009 - frozen
    """Names of the task's metrics."""
    versions: Mapping[str, str] = field(default_factory=_versions)
    created: str = field(default_factory=_now)

    @property
    def passed(self) -> bool:
        """True if no measured check failed or is inconclusive, and at least one passed."""
        return verdict(self.checks)

    @property
    def complete(self) -> bool:
        """True if every applicable check was measured."""
        return all(check.passed is not None for check in applicable(self.checks))

    @property
    def has_auroc(self) -> bool:
        """True if a model has an area under the ROC curve, as of two classes."""
        return any(facts.auroc is not None for facts in self.models.values())

    @property
    def origin(self) -> Candidate:
        """Model whose predictions all maps explain: the PyTorch student, or the fp32 file without one."""
        return origin(self.candidates)

    @property
    def shipped(self) -> Candidate:
        """Model file to deploy, that of the least exact precision."""
        return shipped(self.candidates)

    @property
    def references(self) -> dict[str, Candidate | None]:
        """Reference of each candidate, by name; None if it has none."""
        return {candidate.name: reference(candidate, self.candidates) for candidate in self.candidates}

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values, as described by `report.schema.json`."""
        unit: Unit = "share" if self.wording.is_share else "variance"
        values: dict[str, Any] = {
            "schema": SCHEMA,
            "passed": self.passed,
            "accuracy_metric": self.wording.accuracy,
            "accuracy_unit": unit,
        } | asdict(self)
        for candidate in values.pop("candidates"):
            precision = candidate["precision"]
            values["models"][candidate["name"]]["precision"] = None if precision is None else precision["name"]
        references = {name: None if found is None else found.name for name, found in self.references.items()}
        values["comparisons"] = {
            name: {"reference": references[name]} | asdict(compared) for name, compared in self.comparisons.items()
        }
        for each in (values, *values["comparisons"].values()):
            del each["wording"]
        values["checks"] = [{"passed": check.passed} | asdict(check) for check in self.checks]
        finite: dict[str, Any] = _finite(values)
        return finite


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `report.json`."""
    schema: dict[str, Any] = json.loads(
        files("kdedge_export.validation").joinpath("report.schema.json").read_text(encoding="utf-8")
    )
    return schema


def write_json(report: ValidationReport, path: Path) -> None:
    """Write `report.json` atomically."""
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(path, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

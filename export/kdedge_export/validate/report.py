"""The result of a validation as one JSON document with a stable schema.

`report.json` is described by `report.schema.json` beside this module (JSON Schema, draft 2020-12), which ships with the
package: `kdedge_export.validate.json_schema()`. Numbers that do not exist or are not finite are null; shares and
accuracies are in [0, 1]; an interval is `{low, high}`, 95 %, or null.

A later kdedge may add keys under the same schema number; a key that changes its meaning raises the number. Schema 2 (of
schema 1: `passed` of a check said what the figure said, without its interval); 3 (of 2: maps followed a change by the
share of images that `changed`, now by how `alike` they stay); 4 (of 3: the PyTorch student may be missing, and then
checks may be `not applicable` and int8's reference is the fp32 file).
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
from kdedge_export.candidates import Role, origin, reference, shipped
from kdedge_export.metrics.calibration import Calibration
from kdedge_export.metrics.comparison import Comparison
from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.faithfulness import Faithfulness
from kdedge_export.metrics.localization import Localisation
from kdedge_export.metrics.per_class import ClassRow
from kdedge_export.metrics.robustness import Robustness
from kdedge_export.metrics.sanity import Sanity
from kdedge_export.validate.check import Check, applicable, verdict
from kdedge_export.validate.exactness import AlignedImage
from kdedge_export.validate.footprint import Footprint
from kdedge_export.validate.sampled_metrics import Sampled
from kdedge_runtime.devices.detection import machine_name
from kdedge_runtime.int8_arithmetic import Arithmetic
from kdedge_runtime.util.files import file_sha256, write_whole

__all__ = ["SCHEMA", "Data", "ModelFacts", "ValidationReport", "file_facts", "json_schema", "write_json"]

SCHEMA = 4


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
class ModelFacts:
    """One model that took part."""

    name: str
    """The file's name, or the class of a PyTorch module."""
    bytes: int
    """Of the file; of parameters and buffers for a PyTorch module."""
    sha256: str | None
    """Of the file; of the checkpoint for a PyTorch module, where it is known."""
    top1: float | None
    """Share of right answers in [0, 1]; None without labels."""
    top1_interval: Interval | None = None
    quantization: Mapping[str, Any] | None = None
    """What the file's metadata says of it; None for one that is not quantized."""
    arithmetic: Arithmetic | None = None
    """The arithmetic that all its figures but time and memory were made with; None for one that is not quantized."""


@dataclass(frozen=True)
class Data:
    """What was validated on."""

    description: str = ""
    """In words."""
    fingerprint: str | None = None
    """sha256 over what tells two data sets apart, as training noted it; None where nobody knows."""
    chose_epoch: bool = False
    """Whether the student's best epoch was chosen by these images: new ones it answers somewhat less often right."""


@dataclass(frozen=True)
class ValidationReport:
    """What a validation found."""

    data: Data
    images: int
    labelled: bool
    models: Mapping[Role, ModelFacts]
    comparisons: Mapping[Role, Comparison]
    """Comparisons by candidate, each against `kdedge_export.candidates.reference`."""
    checks: tuple[Check, ...]
    aligned: tuple[AlignedImage, ...] = ()
    """Images whose fp32 map error is of a map with units moved; the comparison is of the maps as they are."""
    classes: tuple[ClassRow, ...] = ()
    """Worst first."""
    calibration: Mapping[Role, Calibration] = field(default_factory=dict)
    """Empty without labels."""
    sanity: Sampled[tuple[Sanity, ...]] | None = None
    localisation: Sampled[dict[str, Localisation]] | None = None
    """By role or baseline; None where nobody says where the objects are."""
    faithfulness: Sampled[dict[str, Faithfulness]] | None = None
    """By role or baseline; None where it was left out, or without maps."""
    robustness: Sampled[tuple[Robustness, ...]] | None = None
    """None where it was left out."""
    footprints: Mapping[Role, Footprint] = field(default_factory=dict)
    device: str | None = None
    """The device profile whose budgets were asked for."""
    quick: bool = False
    """Whether faithfulness and robustness were left out."""
    notes: tuple[str, ...] = ()
    """What else was left out, and why."""
    versions: Mapping[str, str] = field(default_factory=_versions)
    created: str = field(default_factory=_now)

    @property
    def passed(self) -> bool:
        """Whether nothing failed, all that was measured is shown, and something was measured."""
        return verdict(self.checks)

    @property
    def complete(self) -> bool:
        """Return whether every check that applies was measured."""
        return all(check.passed is not None for check in applicable(self.checks))

    @property
    def origin(self) -> Role:
        """The model that all maps explain the answers of: the PyTorch student, else the fp32 file."""
        return origin(self.models)

    @property
    def shipped(self) -> Role:
        """The file that goes to the device: int8 where there is one."""
        return shipped(self.models)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON, as `report.schema.json` describes them."""
        values = {"schema": SCHEMA, "passed": self.passed} | asdict(self)
        values["comparisons"] = {
            role: {"reference": reference(role, self.models)} | asdict(compared)
            for role, compared in self.comparisons.items()
        }
        values["checks"] = [{"passed": check.passed} | asdict(check) for check in self.checks]
        finite: dict[str, Any] = _finite(values)
        return finite


def json_schema() -> dict[str, Any]:
    """The JSON Schema that every `report.json` keeps to."""
    schema: dict[str, Any] = json.loads(
        files("kdedge_export.validate").joinpath("report.schema.json").read_text(encoding="utf-8")
    )
    return schema


def file_facts(path: Path, **facts: Any) -> ModelFacts:
    """Size and checksum of a model file, with what else is known of it."""
    return ModelFacts(path.name, path.stat().st_size, file_sha256(path), **facts)


def write_json(report: ValidationReport, path: Path) -> None:
    """Write `report.json`, whole or not at all."""
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

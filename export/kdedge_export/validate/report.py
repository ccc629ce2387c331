"""The result of a validation as one JSON document with a stable schema.

`report.json`, schema 1. Numbers that do not exist or are not finite are null; shares and accuracies are in [0, 1].

```
schema        1
passed        whether nothing failed and something was measured
created       ISO 8601, UTC
data          what was validated on, in words
images        number of images
labelled      whether the images have labels (without them there is no accuracy)
models        {role: {name, bytes, sha256, top1}}; roles: teacher, student, fp32, int8; sha256 is null
              for a PyTorch module, whose bytes are those of its weights
comparisons   {candidate: {reference, n, top1_reference, top1_candidate, top1_drop_points, agreement, kl, maps}};
              maps is null or {pearson_mean, pearson_p5, pearson_p1, top20_iou_mean, error_relative,
              floor_pearson, constant_reference, constant_candidate, wrong_class}
              (see kdedge_export.validate.compare for what they mean)
checks        [{key, name, measured, relation, bound, unit, passed, reason}]; passed is null where not measured
versions      {package: version}, and the machine that it ran on
```

A later kdedge may add keys under the same schema number; a key that changes its meaning raises the number.
"""

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

import kdedge_export
from kdedge_export.validate.compare import Comparison
from kdedge_export.validate.gates import Check, verdict
from kdedge_export.validate.roles import REFERENCE, Role
from kdedge_runtime.files import write_whole

__all__ = ["SCHEMA", "ModelFacts", "ValidationReport", "file_facts", "write_json"]

SCHEMA = 1


def _versions() -> dict[str, str]:
    return {
        "kdedge": kdedge_export.__version__,
        "torch": version("torch"),
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
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
    """Of the file; None for a PyTorch module."""
    top1: float | None
    """Share of right answers in [0, 1]; None without labels."""


@dataclass(frozen=True)
class ValidationReport:
    """What a validation found."""

    data: str
    """What was validated on, in words."""
    images: int
    labelled: bool
    models: Mapping[Role, ModelFacts]
    comparisons: Mapping[Role, Comparison]
    """By candidate; its reference is `kdedge_export.validate.roles.REFERENCE[candidate]`."""
    checks: tuple[Check, ...]
    versions: Mapping[str, str] = field(default_factory=_versions)
    created: str = field(default_factory=_now)

    @property
    def passed(self) -> bool:
        """Whether nothing failed and something was measured."""
        return verdict(self.checks)

    @property
    def complete(self) -> bool:
        """Whether every check could be measured."""
        return all(check.passed is not None for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON, as the module's docstring describes."""
        comparisons = {role: {"reference": REFERENCE[role]} | asdict(c) for role, c in self.comparisons.items()}
        document = {
            "schema": SCHEMA,
            "passed": self.passed,
            "created": self.created,
            "data": self.data,
            "images": self.images,
            "labelled": self.labelled,
            "models": {role: asdict(facts) for role, facts in self.models.items()},
            "comparisons": comparisons,
            "checks": [asdict(check) for check in self.checks],
            "versions": dict(self.versions),
        }
        finite: dict[str, Any] = _finite(document)
        return finite


def file_facts(path: Path, top1: float | None) -> ModelFacts:
    """Size and checksum of a model file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelFacts(path.name, path.stat().st_size, sha256, top1)


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

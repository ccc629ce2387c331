"""Decide credit applications with reasons, and compare groups of applicants.

```
python tests/benchmarks/credit.py german-credit.csv
```

The table is German credit of UCI: 1,000 applicants, `creditability` good or bad. A fifth of the rows is held out by a
hash of the row and seen by no step of training. Two students are distilled from XGBoost: one with all columns, and one
without age, sex and nationality, which the schema marks as `ignored`. For groups of held-out applicants the table has
the share of good applicants, the share that each student accepts, and its accuracy, with 95% intervals. Then it prints
the four strongest reasons against one refused applicant, as letters of refusal state them, and draws all of them. No
claim is made about real applicants: the data are from 1994, and groups are small.
"""

import argparse
import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from quality import kdedge

from kdedge_export.metrics.confidence import SHARE, mean_interval

TARGET = "creditability"
PROTECTED = ("age_in_years", "personal_status_and_sex", "foreign_worker")
GROUPS: dict[str, Callable[[dict[str, str]], bool]] = {
    "all": lambda row: True,
    "women": lambda row: row["personal_status_and_sex"].startswith("female"),
    "men": lambda row: row["personal_status_and_sex"].startswith("male"),
    "under 26 years": lambda row: int(row["age_in_years"]) < 26,
    "26 years and older": lambda row: int(row["age_in_years"]) >= 26,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/credit"))
    options = parser.parse_args()
    with options.table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    held_out = [row for row in rows if is_held_out(row)]
    data = options.out / "applications.csv"
    write(data, [row for row in rows if not is_held_out(row)])
    everything = distill(data, options.out / "all", None)
    schema = options.out / "all-trees" / "schema.json"
    reduced = distill(data, options.out / "reduced", without(schema, options.out / "reduced.json"))
    columns = ["held-out applicants", "n", "good %", *["accepted %", "right %"] * 2]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    predictions = {run: predict(run, held_out) for run in (everything, reduced)}
    good = np.array([row[TARGET] == "good" for row in held_out])
    for name, is_member in GROUPS.items():
        chosen = np.array([is_member(row) for row in held_out])
        figures = [good[chosen]]
        for accepted, _ in predictions.values():
            figures += [accepted[chosen], accepted[chosen] == good[chosen]]
        print(f"| {name} | {chosen.sum()} | " + " | ".join(share(values) for values in figures) + " |")
    accepted, reasons = predictions[reduced]
    refused = int(np.flatnonzero(~accepted)[0])
    print(f"\nReasons against held-out applicant {refused + 1}, student without the protected columns:")
    for reason in reasons[refused]:
        print(f"- {reason['column']} = {reason['value']}: {reason['contribution']:+.2f}")
    draw(reduced, held_out[refused], options.out / "refused.png")


def is_held_out(row: dict[str, str]) -> bool:
    """Return True for a fifth of the rows, by a hash of their cells."""
    return hashlib.sha256("\0".join(row.values()).encode()).digest()[0] < 256 // 5


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def without(schema: Path, target: Path) -> Path:
    """Write a schema whose protected columns are ignored."""
    content = json.loads(schema.read_text(encoding="utf-8"))
    for column in content["columns"]:
        if column["name"] in PROTECTED:
            column["kind"] = "ignored"
    target.write_text(json.dumps(content), encoding="utf-8")
    return target


def distill(data: Path, run: Path, schema: Path | None) -> Path:
    """Train trees and a student, and export it."""
    trees = run.with_name(f"{run.name}-trees")
    read = ["--target", TARGET, *([] if schema is None else ["--schema", str(schema)])]
    kdedge("train", str(data), *read, "--model", "xgboost", "--out", str(trees))
    kdedge("distill", str(data), *read, "--teacher", str(trees), "--student", "mlp", "--out", str(run))
    if not (run / "model.onnx").is_file():
        import kdedge as toolkit

        toolkit.export(run)
    return run


def predict(run: Path, rows: list[dict[str, str]]) -> tuple[np.ndarray[Any, Any], list[list[dict[str, Any]]]]:
    """Return whether each applicant is accepted, and the four strongest reasons for being bad."""
    from kdedge_runtime import Model

    model = Model.load(run / "model.onnx", threads=1)
    spec, bad = model.metadata.input, model.metadata.labels.index("bad")
    names = [name for name in rows[0] if name != TARGET]
    cells = np.dtype([(name, object) for name in names])
    samples = [np.array(tuple(row[name] for name in names), cells) for row in rows]
    accepted, reasons = [], []
    for sample in samples:
        found = model.predict(spec.preprocess(sample)[None], bad)
        assert found.saliency_map is not None
        accepted.append(int(found.logits[0].argmax()) != bad)
        against = [each for each in spec.reasons(sample, found.saliency_map[0], 20) if each["contribution"] > 0]
        reasons.append(against[:4])
    return np.array(accepted), reasons


def draw(run: Path, row: dict[str, str], target: Path) -> None:
    """Draw the contributions of one applicant."""
    from PIL import Image

    from kdedge_runtime import Model
    from kdedge_runtime.prediction import decode_prediction
    from kdedge_runtime.sources.source import Frame

    model = Model.load(run / "model.onnx", threads=1)
    names = [name for name in row if name != TARGET]
    sample = np.array(tuple(row[name] for name in names), np.dtype([(name, object) for name in names]))
    explanation = model.predict(model.metadata.input.preprocess(sample)[None])
    prediction = decode_prediction(model, Frame(0, sample, 0.0, "applicant"), explanation, clock=lambda: 0.0)
    drawn = model.metadata.input.renderer(moving=False, fps=None).render(prediction, 1.0)
    Image.fromarray(drawn).save(target)


def share(values: np.ndarray[Any, Any]) -> str:
    """Format a share of a group with its interval."""
    interval = mean_interval(values.astype(np.float64), SHARE, scale=100)
    assert interval is not None
    return f"{100 * values.mean():.0f} ({interval.low:.0f} to {interval.high:.0f})"


if __name__ == "__main__":
    main()

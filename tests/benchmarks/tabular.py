"""Benchmark tables: accuracy, contributions and time of students beside XGBoost with TreeSHAP.

```
python tests/benchmarks/tabular.py credit.csv --target creditability --out runs [--folds 5] [--model xgboost]
```

Divides the rows into folds. For each fold it trains the teacher on the others (a fifth of them stops it), a student
alone, one with KD, and one with KD and contributions, and exports the last. Nothing is chosen on the test rows. Prints
one JSON line for each fold and model, then the means (of times the medians) and standard deviations over folds:

- `auc`: area under the ROC curve of the second class; `r2` for a regression;
- `pearson`: mean correlation over rows of the contributions of all columns with the teacher's TreeSHAP values, of the
  teacher's top class; `top3`: mean overlap of the three largest contributions by magnitude;
- `us_row`: microseconds for a row by itself, median; `us_batch`: for each row of 512 at once. One thread, on the CPU.
  The teacher's times are with its TreeSHAP values.
"""

import argparse
import csv
import json
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kdedge
from kdedge.data import index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.decoding import decode
from kdedge.models.trees.ensemble import TreeEnsemble, load_tree_run
from kdedge_export.metrics.auroc import auroc
from kdedge_export.metrics.comparison import maps_pearson
from kdedge_export.metrics.torch_predictions import predict
from kdedge_runtime import Model

_BATCH, _TIMED_ROWS = 512, 300
STUDENTS: dict[str, str | None] = {"alone": "", "KD": "ce:0.1,kd:0.9", "KD + contributions": None}
"""Loss of each student: empty for labels only, None for the recipe's; of regressions with their own terms."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the folds and runs")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--model", default="xgboost", help="teacher: xgboost or lightgbm")
    parser.add_argument("--student", default="mlp")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for fold, data in enumerate(write_folds(options.table, options.out, options.folds, options.seed)):
        for name, figures in measure_fold(data, options).items():
            found[name].append(figures)
            print(json.dumps({"fold": fold, "model": name} | figures), flush=True)
    for name, rows in found.items():
        middle = {key: statistics.median if key.startswith("us") else statistics.mean for key in rows[0]}
        means = {key: round(middle[key](row[key] for row in rows), 4) for key in rows[0]}
        spread = {key: round(statistics.stdev(row[key] for row in rows), 4) for key in rows[0]} if len(rows) > 1 else {}
        print(json.dumps({"model": name, "mean": means, "sd": spread}), flush=True)


def write_folds(table: Path, out: Path, folds: int, seed: int) -> list[Path]:
    """Write a folder with `train.csv`, `val.csv` and `test.csv` for each fold."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    order = np.random.default_rng(seed).permutation(len(rows))
    parts = np.array_split(order, folds)
    written = []
    for fold, test in enumerate(parts):
        rest = np.concatenate([part for other, part in enumerate(parts) if other != fold])
        few = len(rest) // 5
        folder = out / f"fold{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        for side, chosen in {"train": rest[few:], "val": rest[:few], "test": test}.items():
            with (folder / f"{side}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([header, *(rows[place] for place in chosen)])
        written.append(folder)
    return written


def measure_fold(data: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train all models on a fold, and measure them on its test rows."""
    common: dict[str, Any] = {"target": options.target, "seed": options.seed, "device": "cpu"}
    runs = {name: data / name.replace(" + ", "-").lower() for name in ("teacher", *STUDENTS)}
    for run in runs.values():
        shutil.rmtree(run, ignore_errors=True)
    teacher = kdedge.train(data, options.model, output=runs["teacher"], **common)
    task = index_dataset(data, DatasetOptions(target=options.target)).task
    for name, loss in STUDENTS.items():
        if loss and task == "regression":
            loss = loss.replace("ce", "rse").replace("kd", "rsekd")
        if loss == "":
            kdedge.train(data, options.student, output=runs[name], **common)
        else:
            kdedge.distill(data, teacher, options.student, output=runs[name], loss=loss, cache_teacher=1, **common)
        kdedge.export(runs[name], precisions=["int8"] if loss is None else [])
    trees = load_tree_run(teacher.folder, teacher.record)
    test = index_dataset(data, DatasetOptions(target=options.target)).test
    assert test is not None
    decoded = decode(test, trees.input)
    rows, targets = np.asarray(decoded.samples, np.float32), decoded.targets
    logits, parts = trees(rows, explained=True)
    assert parts is not None
    top = logits.argmax(axis=1)
    wanted = parts[np.arange(len(rows)), top][:, None]
    figures = {options.model: accuracy(logits, targets) | timed(lambda some: explain(trees, some), rows)}
    files = {name: runs[name] / "model.onnx" for name in STUDENTS}
    files["KD + contributions, int8"] = runs["KD + contributions"] / "model.int8.onnx"
    for name, file in files.items():
        model = Model.load(file, threads=1)
        given = predict(model, decoded.samples, top)
        assert given.maps is not None
        agreement = {
            "pearson": float(np.nanmean(maps_pearson(wanted, given.maps))),
            "top3": overlap(wanted[:, 0], given.maps[:, 0]),
        }
        figures[name] = accuracy(given.logits, targets) | agreement | timed(model.predict, rows)
    return figures


def explain(trees: TreeEnsemble, rows: np.ndarray) -> None:
    trees(rows, explained=True)


def accuracy(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Compute the AUC of the second class, or R² for a single output."""
    if logits.shape[1] == 1:
        return {"r2": float(1 - np.square(logits[:, 0] - targets).mean() / targets.var())}
    margin = logits[:, 1] - logits[:, 0]
    return {"auc": float(auroc(margin[targets == 1], margin[targets == 0]))}


def overlap(reference: np.ndarray, found: np.ndarray, most: int = 3) -> float:
    """Compute the mean share of the largest contributions by magnitude that are the same."""
    pairs = zip(np.argsort(-np.abs(reference)), np.argsort(-np.abs(found)), strict=True)
    count = min(most, reference.shape[1])
    return float(np.mean([len({*a[:count]} & {*b[:count]}) / count for a, b in pairs]))


def timed(run: Callable[[np.ndarray], object], rows: np.ndarray) -> dict[str, float]:
    """Measure microseconds for a row by itself, and for each row of a batch."""
    batch = np.resize(rows, (_BATCH, *rows.shape[1:]))
    alone = []
    for place in range(_TIMED_ROWS + 20):
        row = batch[place % _BATCH][None]
        started = time.perf_counter()
        run(row)
        alone.append(time.perf_counter() - started)
    together = []
    for _ in range(20):
        started = time.perf_counter()
        run(batch)
        together.append(time.perf_counter() - started)
    return {
        "us_row": 1e6 * statistics.median(alone[20:]),
        "us_batch": 1e6 * statistics.median(together) / _BATCH,
    }


if __name__ == "__main__":
    main()

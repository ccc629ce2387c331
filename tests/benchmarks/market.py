"""Measure whether a model predicts the direction of the next trading day, and what `kdedge validate` answers.

```
python tests/benchmarks/market.py sp500-daily.csv
```

The table of the S&P 500 has the columns Date, Open, High, Low, Close and Adj Close. A row of the dataset has the ten
latest daily returns in percent, and the target `up` or `down` of the next day. Days are divided by time: the last 1,506
are held out, the 750 before them select the boosting round and the epoch, and the others train. Prints the accuracy on
the held-out days of always `up`, of scikit-learn's logistic regression, of the XGBoost teacher and of the distilled
student, with 95% intervals, and the gate of the student against the best constant prediction. No trading advice: the
expected answer is that nothing is shown.
"""

import argparse
import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from quality import kdedge

from kdedge_export.metrics.confidence import SHARE, mean_interval

LAGS = 10
HELD_OUT, SELECTION = 1506, 750


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prices", type=Path, help="CSV with Date and Close or Adj Close, oldest day first")
    parser.add_argument("--out", type=Path, default=Path("runs/market"))
    options = parser.parse_args()
    data, held_out = options.out / "days", options.out / "held-out"
    returns, directions = read_days(options.prices)
    write(data, returns, directions)
    target = ["--target", "direction"]
    teacher, student = options.out / "trees", options.out / "student"
    kdedge("train", str(data), *target, "--model", "xgboost", "--out", str(teacher))
    kdedge("distill", str(data), *target, "--teacher", str(teacher), "--student", "mlp", "--out", str(student))
    run = [sys.executable, "-c", "from kdedge.cli import main; main()"]
    if not (student / "model.onnx").is_file():
        subprocess.run([*run, "export", str(student)], check=True, capture_output=True)
    done = subprocess.run([*run, "validate", str(student), "--data", str(held_out)], check=False, capture_output=True)
    report = json.loads((student / "report" / "report.json").read_text(encoding="utf-8"))
    check = next(check for check in report["checks"] if check["key"].endswith("_gain_over_constant"))
    test_x, test_y = returns[-HELD_OUT:], directions[-HELD_OUT:]
    linear: Any = importlib.import_module("sklearn.linear_model")
    fitted = linear.LogisticRegression().fit(returns[:-HELD_OUT], directions[:-HELD_OUT])
    print("| model | right on 1,506 held-out days % | 95% interval |\n|---|---|---|")
    rows = {"always up": test_y == 1, "logistic regression": fitted.predict(test_x) == test_y}
    for name, right in rows.items():
        interval = mean_interval(np.asarray(right, np.float64), SHARE, scale=100)
        assert interval is not None
        print(f"| {name} | {100 * right.mean():.1f} | {interval.low:.1f} to {interval.high:.1f} |")
    for role, name in (("teacher", "XGBoost"), ("fp32", "student")):
        facts = report["models"][role]
        low, high = (100 * facts["accuracy_interval"][end] for end in ("low", "high"))
        print(f"| {name} | {100 * facts['accuracy']:.1f} | {low:.1f} to {high:.1f} |")
    interval = check["interval"]
    print(
        f"\nStudent against the best constant: {check['measured']:+.1f} points ({interval['low']:+.1f} to "
        f"{interval['high']:+.1f}), {check['outcome']}; exit code {done.returncode}"
    )


def read_days(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the latest returns of each day in percent, `[N, LAGS]`, and whether the next day rose, `[N]`."""
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    name = "Adj Close" if "Adj Close" in rows[0] else "Close"
    closes = np.array([float(row[name]) for row in rows])
    daily = 100 * np.diff(np.log(closes))
    windows = np.lib.stride_tricks.sliding_window_view(daily[:-1], LAGS)
    return windows, (daily[LAGS:] > 0).astype(np.int64)


def write(data: Path, returns: np.ndarray[Any, Any], directions: np.ndarray[Any, Any]) -> None:
    """Write `data/{train,val}.csv`, and the same with the held-out days as `val.csv` in `held-out`."""
    ends = (len(returns) - HELD_OUT - SELECTION, len(returns) - HELD_OUT, len(returns))
    parts = {
        data / "train.csv": slice(0, ends[0]),
        data / "val.csv": slice(ends[0], ends[1]),
        data.with_name("held-out") / "train.csv": slice(0, ends[0]),
        data.with_name("held-out") / "val.csv": slice(ends[1], ends[2]),
    }
    header = [*(f"lag {LAGS - lag} [%]" for lag in range(LAGS)), "direction"]
    for file, days in parts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines)
            writer.writerow(header)
            for values, up in zip(returns[days], directions[days], strict=True):
                writer.writerow([*(f"{value:.5f}" for value in values), "up" if up else "down"])


if __name__ == "__main__":
    main()

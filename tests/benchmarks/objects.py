"""Measure classes that are enrolled on the device with a few images, through the commands of the device.

```
python tests/benchmarks/objects.py gtsrb22 --no-flip --size 64 --weights tf_efficientnet_lite0.safetensors
```

Each fold of `enrollment.py` has a student that never saw every fifth class. Here these classes are enrolled with
`kdedge-run enroll` from 1, 2, 5 and 10 training images each, and `kdedge-run --classes` answers for two folders: the
validation images of the enrolled classes, and those of the classes of training, none of which is enrolled. `wrong` is
the share of answers with another enrolled class. All figures are those of the int8 file, at the threshold of the file
and at higher ones, as means over the folds. Draws answers with their maps to answers.png in --out. Complete runs are
not repeated.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from answer_sheet import write_sheet
from enrollment import FOLDS, distill

from kdedge.data import index_dataset

COUNTS = (1, 2, 5, 10)
THRESHOLDS = (None, 0.85, 0.9)
FIGURES = {"right": "right %", "wrong": "wrong %", "unknown": "unknown %", "accepted": "other signs accepted %"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--teacher", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, required=True, help="weights of the teacher")
    parser.add_argument("--student", default="resnet10w16")
    parser.add_argument("--size", type=int, help="input size of the student in px; default: the teacher's")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--views", type=int, default=4, help="cached views of each image")
    parser.add_argument("--loss", help="default: that of the task")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="train without mirrored images")
    parser.add_argument("--out", type=Path, help="output folder; default: runs/enrollment/ and the name of the dataset")
    options = parser.parse_args()
    out: Path = options.out or Path("runs/enrollment") / options.data.resolve().name
    labels = index_dataset(options.data).labels
    results = []
    for fold in options.folds:
        new = labels[fold::FOLDS]
        model = distill(options, out / f"fold-{fold}", new) / "model.int8.onnx"
        known = [label for label in labels if label not in new]
        for count in COUNTS:
            classes = enroll(model, options.data, new, count, out / f"fold-{fold}-{count}.json")
            for threshold in THRESHOLDS if count == 5 else (None,):
                result = {"fold": fold, "images": count, "threshold": threshold}
                result |= measure(model, set_threshold(classes, threshold), options.data, new, known)
                results.append(result)
                print(json.dumps(result), flush=True)
    print(table(results))
    draw(out / "fold-0" / "model.int8.onnx", out / "fold-0-5.json", options.data, labels, out / "answers.png")


def enroll(model: Path, data: Path, new: tuple[str, ...], count: int, classes: Path) -> Path:
    """Enroll classes with their first images in a fixed random order."""
    classes.unlink(missing_ok=True)
    for label in new:
        files = sorted((data / "train" / label).iterdir())
        chosen = [files[place] for place in np.random.default_rng(0).permutation(len(files))[:count]]
        run("enroll", model, *chosen, "--name", label, "-o", classes)
    return classes


def set_threshold(classes: Path, threshold: float | None) -> Path:
    """Return a copy of the classes with another threshold, or the file itself."""
    if threshold is None:
        return classes
    copy = classes.with_stem(f"{classes.stem}-{threshold}")
    shutil.copyfile(classes, copy)
    content = json.loads(copy.read_text(encoding="utf-8"))
    copy.write_text(json.dumps(content | {"threshold": threshold}), encoding="utf-8")
    return copy


def measure(model: Path, classes: Path, data: Path, new: tuple[str, ...], known: list[str]) -> dict[str, float]:
    """Return the shares of answers for images of enrolled classes and of others, as fractions."""
    lines = {label: answers(model, classes, data / "val" / label) for label in (*new, *known)}
    enrolled = [(label, line) for label in new for line in lines[label]]
    others = [line for label in known for line in lines[label]]
    unknown = statistics.mean(line["unknown"] for _, line in enrolled)
    right = statistics.mean(not line["unknown"] and line["label"] == label for label, line in enrolled)
    accepted = statistics.mean(not line["unknown"] for line in others)
    return {"right": right, "wrong": 1 - right - unknown, "unknown": unknown, "accepted": accepted}


def answers(model: Path, classes: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a folder of images."""
    done = run(model, "--classes", classes, "--source", folder, "--jsonl", "-")
    return [line for line in map(json.loads, done.splitlines()) if "summary" not in line]


def run(*arguments: object) -> str:
    """Run a command of the device, and return its standard output."""
    command = [str(Path(sys.executable).with_name("kdedge-run")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def table(results: list[dict[str, Any]]) -> str:
    """Return the means over folds as a Markdown table."""
    lines = ["| images | threshold | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 2) + "|"]
    for key in dict.fromkeys((row["images"], row["threshold"]) for row in results):
        rows = [row for row in results if (row["images"], row["threshold"]) == key]
        figures = [f"{100 * statistics.mean(row[name] for row in rows):.1f}" for name in FIGURES]
        lines.append(f"| {key[0]} | {key[1] or 'of the file'} | {' | '.join(figures)} |")
    return "\n".join(lines)


def draw(model: Path, classes: Path, data: Path, labels: tuple[str, ...], target: Path) -> None:
    """Draw the answers for the largest image of three enrolled classes, and of one that is not."""
    folders = []
    for number, label in enumerate((*labels[0::FOLDS][:3], labels[1])):
        file = max((data / "val" / label).iterdir(), key=lambda path: path.stat().st_size)
        folder = target.with_name(f"answer-{number}")
        run(model, "--classes", classes, "--source", file, "-o", folder)
        folders.append(folder)
    write_sheet(folders, target, width=240)


if __name__ == "__main__":
    main()

"""Measure distillation with few labeled images and unlabeled ones, against all labels.

```
python tests/benchmarks/unlabeled.py gtsrb22 --no-flip --weights tf_efficientnet_lite0.safetensors
```

The teacher is EfficientNet-Lite0, fine-tuned on all labels of the training split. The same student is then distilled
from all labels, from a few labeled images per class, and from these and all other training images without their labels
(`--samples-per-class N --unlabeled DATA/train`, which drops copies of the labeled ones). `labels alone` trains it
without the teacher. Figures are of the last epoch on the validation split, on which nothing is selected. Prints one
JSON line per result and a table: mean and standard deviation over the seeds. Complete runs in --out are not repeated,
so other students, losses and epochs need another --out.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from quality import kdedge

METHODS = ("all labels", "labels alone", "few labels", "few labels and unlabeled")
_FIGURES = {"val_top1": "top-1 %", "val_agreement": "agreement %", "val_map_pearson": "map Pearson"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--model", default="timm:tf_efficientnet_lite0", help="teacher")
    parser.add_argument("--weights", type=Path, help="weights of the teacher; default: published ones")
    parser.add_argument("--student", default="resnet10w16")
    parser.add_argument("--student-weights", type=Path, help="weights of the students; default: random ones")
    parser.add_argument("--loss", help="loss of the distilled students; default: chosen by kdedge")
    parser.add_argument("--samples-per-class", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher", type=Path, help="run of the teacher; default: trained first")
    parser.add_argument("--size", type=int, help="input size of the students in px; default: the teacher's")
    parser.add_argument("--epochs", type=int, help="of every student; default: chosen by kdedge")
    parser.add_argument("--views", type=int, help="cached views of each image, for the recipe default")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, help="output folder; default: runs/unlabeled/ and the name of the dataset")
    options = parser.parse_args()
    out = options.out or Path("runs/unlabeled") / options.data.resolve().name
    results = []
    teacher = options.teacher or train_teacher(options, out / "teacher")
    for method, seed in itertools.product(options.methods, options.seeds):
        result = {"method": method, "seed": seed, **train_student(options, teacher, out, method, seed)}
        results.append(result)
        print(json.dumps(result), flush=True)
    print(table(results))


def train_teacher(options: argparse.Namespace, run: Path) -> Path:
    """Fine-tune the teacher on all labels."""
    weights = [] if options.weights is None else ["--weights", str(options.weights)]
    flip = [] if options.flip else ["--no-flip"]
    kdedge("train", str(options.data), "--model", options.model, "--out", str(run), *weights, *flip)
    return run


def train_student(options: argparse.Namespace, teacher: Path, out: Path, method: str, seed: int) -> dict[str, Any]:
    """Train a student and return its figures."""
    run = out / f"{method.replace(' ', '-')}-{seed}"
    few = [] if method == "all labels" else ["--samples-per-class", str(options.samples_per_class)]
    arguments = [str(options.data), "--seed", str(seed), "--out", str(run), *few]
    arguments += [] if options.flip else ["--no-flip"]
    arguments += [] if options.size is None else ["--size", str(options.size)]
    arguments += [] if options.epochs is None else ["--epochs", str(options.epochs)]
    weights = options.student_weights
    arguments += ["--no-pretrained"] if weights is None else ["--weights", str(weights)]
    if method == "labels alone":
        kdedge("train", *arguments, "--model", options.student)
    else:
        more = ["--unlabeled", str(options.data / "train")] if method == METHODS[-1] else []
        # Few images have a recipe with mixed images, which cannot be cached.
        more += [] if options.views is None or method == METHODS[2] else ["--cache-teacher", str(options.views)]
        more += [] if options.loss is None else ["--loss", options.loss]
        kdedge("distill", *arguments, *more, "--teacher", str(teacher), "--student", options.student)
    record = json.loads((run / "run.json").read_text())
    last = record["result"]["last"]
    return {"images": record["data"]["train"], **{name: last[name] for name in _FIGURES if name in last}}


def table(results: list[dict[str, Any]]) -> str:
    """Format the table of the docs as Markdown."""
    lines = ["| trained on | images | " + " | ".join(_FIGURES.values()) + " |", "|---" * (len(_FIGURES) + 2) + "|"]
    for method in dict.fromkeys(result["method"] for result in results):
        rows = [row for row in results if row["method"] == method]
        figures = [_mean(name, [row[name] for row in rows if name in row]) for name in _FIGURES]
        lines.append(f"| {method} | {rows[0]['images']:,} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def _mean(name: str, values: list[float]) -> str:
    if not values:
        return ""
    scale, digits = (1, 3) if name.endswith("pearson") else (100, 1)
    spread = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * statistics.mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main()

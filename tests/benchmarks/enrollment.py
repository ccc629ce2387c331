"""Measure embeddings on classes that the student was never trained on.

```
python tests/benchmarks/enrollment.py gtsrb22 --no-flip --size 64 --weights tf_efficientnet_lite0.safetensors
python tests/benchmarks/enrollment.py tiny-imagenet-20 --size 64 --weights tf_efficientnet_lite0.safetensors
```

Each fold trains without every fifth class (`kdedge distill --task embedding --leave-out …`) and exports fp32 and int8
files. Five training images of each left-out class are enrolled, as `kdedge-run enroll` does, and the validation images
of these classes are recognized among them. This is repeated with other images. `false accepts` are validation images of
the classes of training, none of which is enrolled, at the threshold of the file. Error rates of pairs are those of two
validation images of left-out classes (`kdedge_export.metrics.verification`).

`ImageNet features` are the teacher's pooled features without a projection, as computed by timm, and `teacher` is its
embedding. Neither shares code with the student's files except for the projection. Figures are of the last epoch, and
nothing is selected on left-out classes. Prints one JSON line per fold and model, and a table of the means over folds.
Complete runs in --out are not repeated.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quality import kdedge
from timm_features import load_features

from kdedge.data import decode, index_dataset
from kdedge_export.familiarity.discriminant import fit_discriminant
from kdedge_export.metrics.file_predictions import embed as embed_images
from kdedge_export.metrics.verification import verification
from kdedge_runtime import Model
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

FOLDS, ENROLLED, DRAWS = 5, 5, 5
FIGURES = {
    "accuracy": "accuracy %",
    "recognized": "recognized %",
    "false_accepts": "false accepts %",
    "equal_error": "EER %",
    "true_accepts": "TAR % at 1% FAR",
}
_AXES = 256


@dataclass(frozen=True)
class Embedded:
    """Embeddings of length 1 `[N, D]` with classes `[N]`: of training and validation images."""

    train: Floats
    train_classes: Integers
    val: Floats
    val_classes: Integers


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
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, help="output folder; default: runs/enrollment/ and the name of the dataset")
    options = parser.parse_args()
    out = options.out or Path("runs/enrollment") / options.data.resolve().name
    labels = index_dataset(options.data).labels
    results = []
    for fold in options.folds:
        left_out = labels[fold::FOLDS]
        run = distill(options, out / f"fold-{fold}", left_out)
        classes = np.array([labels.index(label) for label in left_out])
        for name, (embedded, threshold) in embed(options, run, classes).items():
            result = {"fold": fold, "model": name, **measure(embedded, classes, threshold)}
            results.append(result)
            print(json.dumps(result), flush=True)
    print(table(results))


def distill(options: argparse.Namespace, run: Path, left_out: tuple[str, ...]) -> Path:
    """Distill and export a student that never sees the left-out classes."""
    arguments = ["--teacher", options.teacher, "--teacher-weights", str(options.weights), "--student", options.student]
    arguments += ["--task", "embedding", "--epochs", str(options.epochs), "--cache-teacher", str(options.views)]
    arguments += ["--recipe", "default", *([] if options.loss is None else ["--loss", options.loss])]
    arguments += [*([] if options.size is None else ["--size", str(options.size)])]
    arguments += [*([] if options.flip else ["--no-flip"])]
    arguments += [word for label in left_out for word in ("--leave-out", label)]
    kdedge("distill", str(options.data), *arguments, "--out", str(run))
    if not (run / "model.int8.onnx").is_file():
        subprocess.run([sys.executable, "-m", "kdedge", "export", str(run), "--quantize"], check=True)
    return run


def embed(options: argparse.Namespace, run: Path, left_out: Integers) -> dict[str, tuple[Embedded, float | None]]:
    """Return the embeddings of all images by each model, and the threshold of its file."""
    images = {
        side: read(options.data, side, Model.load(run / "model.onnx").metadata.input) for side in ("train", "val")
    }
    found: dict[str, tuple[Embedded, float | None]] = {}
    features = of_timm(options, run.parent)
    known = ~np.isin(features.train_classes, left_out)
    center = features.train[known].mean(axis=0)
    found["ImageNet features"] = (_map(features, lambda values: values - center), None)
    projection = fit_discriminant(features.train[known], features.train_classes[known], _AXES)
    assert projection is not None
    found["teacher"] = (_map(features, lambda values: values @ projection.projection + projection.offset), None)
    for name in ("model.onnx", "model.int8.onnx"):
        model = Model.load(run / name, exact_sums=True)
        sides = {side: embed_images(model, pixels) for side, (pixels, _) in images.items()}
        embedded = Embedded(sides["train"], images["train"][1], sides["val"], images["val"][1])
        assert model.metadata.embedding is not None
        found["student, " + ("int8" if "int8" in name else "fp32")] = (embedded, model.metadata.embedding.threshold)
    return found


def read(data: Path, side: str, spec: InputSpec) -> tuple[Pixels, Integers]:
    """Decode a split at a model's input."""
    samples = decode(getattr(index_dataset(data), side), spec)
    assert samples.targets is not None
    return samples.samples, np.asarray(samples.targets)


def of_timm(options: argparse.Namespace, out: Path) -> Embedded:
    """Return the pooled features of the teacher as timm computes them, which are kept in a file."""
    kept = out / "features.npz"
    if not kept.is_file():
        features, spec = load_features(options.teacher, options.weights)
        arrays: dict[str, Any] = {}
        for side in ("train", "val"):
            pixels, arrays[f"{side}_classes"] = read(options.data, side, spec)
            arrays[side] = features(pixels)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, allow_pickle=False, **arrays)
    loaded = np.load(kept)
    return Embedded(*(loaded[name] for name in ("train", "train_classes", "val", "val_classes")))


def measure(embedded: Embedded, left_out: Integers, threshold: float | None) -> dict[str, Any]:
    """Measure recognition of enrolled classes, as means over draws of the enrolled images, and of pairs."""
    new = np.isin(embedded.val_classes, left_out)
    draws = []
    for seed in range(DRAWS):
        generator = np.random.default_rng(seed)
        prototypes = np.stack([_enroll(embedded, each, generator) for each in left_out])
        similarities, others = embedded.val[new] @ prototypes.T, embedded.val[~new] @ prototypes.T
        right = left_out[similarities.argmax(axis=1)] == embedded.val_classes[new]
        draw = {"accuracy": float(right.mean())}
        if threshold is not None:
            draw["recognized"] = float((right & (similarities.max(axis=1) >= threshold)).mean())
            draw["false_accepts"] = float((others.max(axis=1) >= threshold).mean())
        draws.append(draw)
    figures: dict[str, Any] = {name: statistics.mean(draw[name] for draw in draws) for name in draws[0]}
    found = verification({"": embedded.val[new]}, "", embedded.val_classes[new])
    assert found is not None
    (pairs,) = found.files
    return figures | {"equal_error": pairs.equal_error, "true_accepts": pairs.true_accepts, "images": int(new.sum())}


def table(results: list[dict[str, Any]]) -> str:
    """Format the table of the docs as Markdown: means over folds."""
    lines = ["| embedding | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for name in dict.fromkeys(result["model"] for result in results):
        rows = [row for row in results if row["model"] == name]
        figures = [
            f"{100 * statistics.mean(row[key] for row in rows):.1f}" if key in rows[0] else "" for key in FIGURES
        ]
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def _enroll(embedded: Embedded, label: int, generator: np.random.Generator) -> Floats:
    """Return the mean embedding of a few training images of a class, of length 1."""
    chosen = generator.choice(np.flatnonzero(embedded.train_classes == label), ENROLLED, replace=False)
    mean = embedded.train[chosen].mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def _map(embedded: Embedded, function: Any) -> Embedded:
    """Apply a function to all vectors, and normalize them."""
    sides = (function(values) for values in (embedded.train, embedded.val))
    train, val = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in sides)
    return Embedded(train, embedded.train_classes, val, embedded.val_classes)


if __name__ == "__main__":
    main()

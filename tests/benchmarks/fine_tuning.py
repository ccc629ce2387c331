"""Measure training from trained weights: logistic regression, `--freeze`, the recipe `fine-tune`, and random weights.

```
python tests/benchmarks/fine_tuning.py gtsrb22 --no-flip --weights tf_efficientnet_lite0.safetensors
python tests/benchmarks/fine_tuning.py tiny-imagenet-20 --weights tf_efficientnet_lite0.safetensors
```

Each row is a number of training images per class, or all. Logistic regression is scikit-learn's, with its defaults, on
the pooled features that timm computes from the same pixels; it shares no code with kdedge's head. The others are runs
of `kdedge train` with the defaults of the device. Figures are of the validation split. `fine-tune` chooses among the
averages of its first and last weights there, so the choice is made on every second image and measured on the others,
both ways. Seconds contain decoding and features. Prints one JSON line per result and a table: mean and
standard deviation over the seeds. They change the order, the augmentation and the random weights, not the chosen
images. Complete runs in --out are not repeated.
"""

import argparse
import importlib
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

from quality import kdedge
from timm_features import load_features

METHODS = {
    "freeze": ["--freeze"],
    "fine-tune": [],
    "random weights": ["--no-pretrained"],
}
"""Options of `kdedge train` for each method."""
LINEAR = "logistic regression"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--samples-per-class", type=int, nargs="+", default=[20, 50, 0], help="0 takes all")
    parser.add_argument("--methods", nargs="+", choices=[LINEAR, *METHODS], default=[LINEAR, *METHODS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of runs that train all layers; default: chosen by kdedge")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--out", type=Path, help="output folder; default: runs/fine-tuning/ and the name of the dataset"
    )
    options = parser.parse_args()
    out = options.out or Path("runs/fine-tuning") / options.data.resolve().name
    results = []
    for images, method, seed in itertools.product(options.samples_per_class, options.methods, options.seeds):
        if method in (LINEAR, "freeze") and seed != options.seeds[0]:
            continue  # nothing is random
        result = {"images": images or "all", "method": method, "seed": seed}
        if method == LINEAR:
            result |= regress(options.data, options.model, options.weights, images, out / f"{images}-linear.json")
        else:
            result |= train(options, out / f"{images}-{method.replace(' ', '-')}-{seed}", images, method, seed)
        results.append(result)
        print(json.dumps(result), flush=True)
    print(table(results))


def train(options: argparse.Namespace, run: Path, images: int, method: str, seed: int) -> dict[str, Any]:
    """Train a run and return its accuracy in % and its duration."""
    arguments = ["train", str(options.data), "--model", options.model, "--seed", str(seed), "--out", str(run)]
    arguments += [] if options.flip else ["--no-flip"]
    arguments += [] if options.epochs is None or method == "freeze" else ["--epochs", str(options.epochs)]
    arguments += ["--samples-per-class", str(images)] if images else []
    arguments += [] if method == "random weights" else ["--weights", str(options.weights)]
    started = time.monotonic()
    kdedge(*arguments, *METHODS[method])
    seconds = run.with_suffix(".seconds")
    if not seconds.is_file():
        seconds.write_text(f"{time.monotonic() - started:.1f}")
    record = json.loads((run / "run.json").read_text())
    last = 100 * record["result"]["last"]["val_top1"]
    result = {"top1": last, "epochs": record["recipe"]["epochs"], "seconds": float(seconds.read_text())}
    if (run / "head.safetensors").is_file():
        result |= {"last_epoch": last, "top1": choose_on_halves(run, options.data)}
    return result


def choose_on_halves(run: Path, data: Path) -> float:
    """Return the accuracy in % of the best average, chosen on each half of the validation images for the other."""
    import numpy as np
    import torch

    from kdedge.data import decode, index_dataset
    from kdedge.models.trained_model import load_trained
    from kdedge.models.weight_files import load_state, read_state
    from kdedge.training.weight_average import SHARES, average_weights
    from kdedge_export.modalities import modality_of

    trained = load_trained(str(run), which="last")
    model, first = trained.model.eval(), read_state(run / "head.safetensors")
    last = {name: value.clone() for name, value in model.state_dict().items()}
    val, front_end = decode(index_dataset(data).val, trained.input), modality_of(trained.input).front_end(trained.input)
    right = []
    for share in (0.0, *SHARES, 1.0):
        load_state(model, average_weights(first, last, share), str(run))
        with torch.inference_mode():
            parts = [
                model(front_end(torch.from_numpy(val.samples[start : start + 64].copy()))).argmax(dim=1)
                for start in range(0, len(val.samples), 64)
            ]
        right.append(torch.cat(parts).numpy() == val.targets)
    answers, even = np.stack(right), np.arange(len(val.samples)) % 2 == 0
    chosen = [answers[answers[:, half].mean(axis=1).argmax(), ~half].sum() for half in (even, ~even)]
    return 100 * float(sum(chosen)) / len(even)


def regress(data: Path, name: str, weights: Path, images: int, kept: Path) -> dict[str, Any]:
    """Fit scikit-learn's logistic regression on pooled features of timm."""
    if kept.is_file():
        cached: dict[str, Any] = json.loads(kept.read_text())
        return cached
    from kdedge.data import decode, index_dataset, subset

    linear_model: Any = importlib.import_module("sklearn.linear_model")  # without type stubs

    started = time.monotonic()
    features, spec = load_features(name, weights)
    dataset = index_dataset(data)
    train_split = decode((subset(dataset, images) if images else dataset).train, spec)
    assert train_split.targets is not None
    fitted = linear_model.LogisticRegression(max_iter=1000).fit(features(train_split.samples), train_split.targets)
    seconds = time.monotonic() - started
    val = decode(dataset.val, spec)
    result = {"top1": 100 * float(fitted.score(features(val.samples), val.targets)), "seconds": round(seconds, 1)}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(result))
    return result


def table(results: list[dict[str, Any]]) -> str:
    """Format the table of the docs as Markdown."""
    methods = list(dict.fromkeys(result["method"] for result in results))
    lines = ["| images per class | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for images in dict.fromkeys(result["images"] for result in results):
        positions = []
        for method in methods:
            rows = [row for row in results if (row["images"], row["method"]) == (images, method)]
            values = [row["top1"] for row in rows]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            seconds = statistics.median(row["seconds"] for row in rows)
            positions.append(f"{statistics.mean(values):.1f}{spread} ({seconds:.0f} s)")
        lines.append(f"| {images} | " + " | ".join(positions) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

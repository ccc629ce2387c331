"""Measure distillation quality: teacher, student alone, with KD, and with KD and map terms.

```
python tests/benchmarks/quality.py DATA
python tests/benchmarks/quality.py cifar10 --teacher small:resnet56 --teacher-weights W.safetensors \\
    --students resnet8 resnet20 --regimes all --recipe tests/benchmarks/cifar.toml  # see cifar10.py for the data
python tests/benchmarks/quality.py cifar10 --teacher small:resnet56 --teacher-weights W.safetensors \\
    --students resnet8 --regimes few --samples-per-class 50 --few-epochs 250 --methods default
```

Every run uses the command line (`kdedge train`, `kdedge distill`), with the defaults of the device unless given.
Students are evaluated with the weights of their last epoch, so that they are not selected on the reported images: those
in `test/` if it exists, otherwise the validation split. The teacher is the one used for distillation, at its best epoch
by validation. Pointing is a hit if the maximum of the map of the ground-truth class lies in the object's box of
`boxes.csv`; the score of a guess at the image center is reported too. Prints one JSON line per run and, at the end, the
table of the README: mean ± standard deviation over the seeds. Complete runs in --out are not repeated, so other epochs,
sizes or models need another --out.
"""

import argparse
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdedge.data import DecodedSamples
    from kdedge_export.metrics.torch_predictions import Predictions
    from kdedge_runtime.modalities.image import ImageInput

METHODS = {
    "alone": "ce",
    "KD": "ce:0.1,kd:0.9",
    "KD + map": "ce:0.1,kd:0.9,map:20",
    "KD + mapall": "ce:0.1,kd:0.9,mapall:20",
    "KD + cat": "ce:0.1,kd:0.9,cat",
    "cat": "ce,cat",
    "e2": "kd,e2",
    "dkd": "ce,dkd",
    "ls": "ce:0.1,ls",
    "dist": "ce,dist",
    "default": None,
}
"""Loss of each method; None takes the recipe's."""
FIGURES = {"top1": "top-1 %", "agreement": "agreement %", "map_pearson": "map Pearson", "pointing": "pointing %"}


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or the given arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--teacher", default="resnet18", help="network to train first, or a trained one with its weights"
    )
    parser.add_argument("--teacher-weights")
    parser.add_argument("--students", nargs="+", default=["resnet10w16"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["alone", "KD", "KD + mapall"])
    parser.add_argument("--regimes", nargs="+", choices=("all", "few"), default=["all", "few"])
    parser.add_argument(
        "--samples-per-class", type=int, default=20, help="number of images per class in the regime `few`"
    )
    parser.add_argument("--recipe", help="recipe of the students; default: chosen by kdedge")
    parser.add_argument("--cache-teacher", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel runs")
    parser.add_argument("--epochs", type=int, help="epochs of every student; default: chosen by kdedge")
    parser.add_argument("--few-epochs", type=int, help="epochs of students in the regime `few`")
    parser.add_argument("--teacher-epochs", type=int)
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--size", type=int)
    parser.add_argument("--out", type=Path, help="output folder; default: runs/quality/ and the name of the dataset")
    options = parser.parse_args(arguments)
    options.out = options.out or Path("runs/quality") / options.data.resolve().name
    return options


def main() -> None:
    options = read_options()
    common = [str(options.data), *([] if options.flip else ["--no-flip"])]
    teacher, weights = str(options.out / "teacher"), None
    if options.teacher_weights:
        teacher, weights = options.teacher, Path(options.teacher_weights)
    else:
        size = given("--size", options.size)
        kdedge(
            "train",
            *common,
            "--model",
            options.teacher,
            "--no-pretrained",
            "--out",
            teacher,
            *size,
            *given("--epochs", options.teacher_epochs),
        )

    jobs = []
    choices = itertools.product(options.regimes, options.students, options.methods, range(options.seeds))
    for regime, student, method, seed in choices:
        few = regime == "few"
        images = f"{options.samples_per_class} per class" if few else "all images"
        name = f"{options.samples_per_class if few else 'all'}-{student}-{method.replace(' ', '')}-{seed}"
        arguments = ["distill", *common, "--teacher", teacher, "--student", student, "--out", str(options.out / name)]
        arguments += [
            "--no-pretrained",
            "--seed",
            str(seed),
            *given("--epochs", options.few_epochs if few else options.epochs),
        ]
        arguments += given("--loss", METHODS[method]) + given("--teacher-weights", weights)
        arguments += given("--recipe", options.recipe) + given("--cache-teacher", options.cache_teacher)
        arguments += given("--samples-per-class", options.samples_per_class if few else None)
        jobs.append(
            ({"images": images, "student": student, "method": method, "seed": seed}, options.out / name, arguments)
        )
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda job: kdedge(*job[2]), jobs))

    taught = {"images": "all images", "student": "", "method": "teacher", "seed": 0}
    results = [taught | evaluate(teacher, weights, teacher, weights, options.data)]
    for what, out, _ in jobs:
        results.append(what | evaluate(str(out), None, teacher, weights, options.data))
    for result in results:
        print(json.dumps(result), flush=True)
    print(table(results))


def kdedge(*arguments: str) -> None:
    """Run the command line in a separate process, with its log next to the run."""
    command = [sys.executable, "-c", "from kdedge.cli import main; main()", *arguments]
    out = Path(arguments[arguments.index("--out") + 1])
    if (out / "run.json").is_file() and json.loads((out / "run.json").read_text())["result"]:
        return
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        done = subprocess.run(command, stdout=stream, stderr=stream, env=os.environ, check=False)
    if done.returncode:
        raise SystemExit(f"kdedge {' '.join(arguments)}\n{log.read_text()[-2000:]}")


def given(option: str, value: object) -> list[str]:
    return [] if value is None else [option, str(value)]


def evaluate(
    run: str, weights: Path | None, teacher: str, teacher_weights: Path | None, data: Path
) -> dict[str, object]:
    """Compare a run with the teacher on the test images, or on the validation images without any."""
    import numpy as np
    import torch

    from kdedge.data.annotations import boxes_beside, object_masks
    from kdedge.models.run_folder import read_run
    from kdedge.models.trained_model import load_trained
    from kdedge_export.metrics import agreement
    from kdedge_export.metrics.comparison import pair_pearson
    from kdedge_export.metrics.localization import localize_all
    from kdedge_export.metrics.resampling import area_mean
    from kdedge_export.metrics.torch_predictions import predict
    from kdedge_export.modalities.image import edge_maps
    from kdedge_export.torch_export import wrap_for_export
    from kdedge_runtime.modalities.image import require_image

    student = load_trained(run, weights=weights, which="best" if run == teacher else "last")
    spec = require_image(student.input, run)
    if torch.cuda.is_available():
        student.model.cuda()
    held_out, reference = taught_by(teacher, teacher_weights, data, student.input)
    assert held_out.targets is not None
    train_step = wrap_for_export(student.model, student.input)
    predictions = predict(train_step, held_out.samples, reference.explained_class)
    pearson = pair_pearson(reference, predictions)
    assert pearson is not None
    figures: dict[str, object] = {
        "top1": 100 * agreement.top1_accuracy(predictions.logits, held_out.targets),
        "agreement": 100 * agreement.agreement(reference.logits, predictions.logits),
        "map_pearson": float(np.nanmean(pearson)),
        "map_pearson_p5": float(np.nanpercentile(pearson, 5)),
        "parameters": student.parameters,
        "size": spec.height,
    }
    if weights is None:
        record = read_run(Path(run))
        assert record.result is not None
        figures |= {"epochs": record.recipe["epochs"], "seconds": record.result["seconds"], "device": record.device}
    boxes = boxes_beside(str(data))
    if boxes is not None:
        masks = object_masks(boxes, held_out.stored, spec)
        named = [index for index, mask in enumerate(masks) if mask is not None]
        images, known = held_out.samples[named], [mask for mask in masks if mask is not None]
        maps = predict(train_step, images, held_out.targets[named]).maps
        assert maps is not None
        found = localize_all({"run": maps}, known, {}, {"edges": area_mean(edge_maps(images), *maps.shape[1:])})
        figures["pointing"] = 100 * found["run"].pointing
        figures["pointing_center"] = 100 * found["center"].pointing
    return figures


@functools.cache
def taught_by(
    teacher: str, weights: Path | None, data: Path, spec: "ImageInput"
) -> tuple["DecodedSamples", "Predictions"]:
    """Decode the held-out images at a student's size and evaluate the teacher on them, once for all its students."""
    import torch

    from kdedge.data import decode, index_dataset
    from kdedge.models.trained_model import load_trained
    from kdedge_export.metrics.torch_predictions import predict
    from kdedge_export.torch_export import wrap_for_export

    taught = load_trained(teacher, weights=weights)
    if torch.cuda.is_available():
        taught.model.cuda()
    dataset = index_dataset(data)
    held_out = decode(dataset.test or dataset.val, spec)
    return held_out, predict(wrap_for_export(taught.model, taught.input), held_out.samples)


def table(results: list[dict[str, object]]) -> str:
    """Format the README's table as Markdown."""
    shown = [name for name in FIGURES if name in results[0]]
    lines = [
        "| images | student | method | " + " | ".join(FIGURES[name] for name in shown) + " |",
        "|---" * (len(shown) + 3) + "|",
    ]
    for kind in dict.fromkeys((row["images"], row["student"], row["method"]) for row in results):
        rows = [row for row in results if (row["images"], row["student"], row["method"]) == kind]
        positions = []
        for name in shown:
            values = [float(str(row[name])) for row in rows]
            digits = 3 if name == "map_pearson" else 1
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            positions.append(f"{statistics.mean(values):.{digits}f}{spread}")
        lines.append(f"| {' | '.join(map(str, kind))} | " + " | ".join(positions) + " |")
    if "pointing_center" in results[0]:
        dashes = " | –" * (len(shown) - 1)
        lines.insert(3, f"| – | – | guess at the center{dashes} | {float(str(results[0]['pointing_center'])):.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""What distillation is worth: teacher, student alone, with KD, with KD and the explanation term.

    python tests/benchmarks/quality.py DATA

Every run is the command line's own (`kdedge train`, `kdedge distill`), with the defaults of the device unless given.
Students are judged by the weights of their last epoch, so that they are not selected on the images that are
reported; the teacher is the one that teaches, its best epoch by validation. Pointing is hit or miss on `boxes.csv`: the
maximum of the map of the true class lies in the object's box, beside what a guess at the picture's centre scores.
Prints one JSON line a run and, at the end, the table of the README: mean ± standard deviation over the seeds. Runs that
are complete in --out are not run again, so other epochs, sizes or models want another --out.
"""

import argparse
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

METHODS = {
    "student alone": "ce",
    "KD": "ce:0.1,kd:0.9",
    "KD + mapall": "ce:0.1,kd:0.9,mapall:20",
}
FIGURES = {"top1": "top-1 %", "agreement": "agreement %", "map_pearson": "map Pearson", "pointing": "pointing %"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", default="resnet18")
    parser.add_argument("--student", default="resnet10w16")
    parser.add_argument("--images-per-class", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--epochs", type=int, help="of every student; default: chosen by kdedge")
    parser.add_argument("--few-epochs", type=int, help="of students that see few images")
    parser.add_argument("--teacher-epochs", type=int)
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--size", type=int)
    parser.add_argument("--out", type=Path, help="default: runs/quality/ and the name of the data")
    options = parser.parse_args()
    options.out = options.out or Path("runs/quality") / options.data.resolve().name

    common = [str(options.data), *([] if options.flip else ["--no-flip"])]
    teacher = options.out / "teacher"
    size = ["--size", str(options.size)] if options.size else []
    kdedge("train", *common, "--model", options.teacher, "--out", str(teacher), *size, *epochs(options.teacher_epochs))

    jobs = []
    for few, (method, loss), seed in itertools.product((False, True), METHODS.items(), range(options.seeds)):
        out = options.out / f"{options.images_per_class if few else 'all'}-{method.replace(' ', '')}-{seed}"
        regime = f"{options.images_per_class} a class" if few else "all images"
        arguments = ["distill", *common, "--teacher", str(teacher), "--student", options.student, "--out", str(out)]
        arguments += ["--loss", loss, "--seed", str(seed), *epochs(options.few_epochs if few else options.epochs)]
        arguments += ["--images-per-class", str(options.images_per_class)] if few else []
        jobs.append((regime, method, seed, out, arguments))
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda job: kdedge(*job[4]), jobs))

    results = [{"images": "all images", "method": "teacher", "seed": 0, **judge(teacher, teacher, options.data)}]
    for regime, method, seed, out, _ in jobs:
        results.append({"images": regime, "method": method, "seed": seed, **judge(out, teacher, options.data)})
    for result in results:
        print(json.dumps(result), flush=True)
    print(table(results))


def kdedge(*arguments: str) -> None:
    """Run the command line in a process of its own; its log goes beside the run."""
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


def epochs(count: int | None) -> list[str]:
    return [] if count is None else ["--epochs", str(count)]


def judge(run: Path, teacher: Path, data: Path) -> dict[str, object]:
    """A run against the teacher, on the validation images."""
    import numpy as np
    import torch

    from kdedge.data import decode, scan
    from kdedge.models.run_folder import read_run
    from kdedge.models.trained import load_trained
    from kdedge_export.graph import deploy
    from kdedge_export.validate import metrics, predict
    from kdedge_export.validate.compare import pair_pearson
    from kdedge_runtime.preprocess import visible_box

    student, taught = load_trained(str(run), which="best" if run == teacher else "last"), load_trained(str(teacher))
    if torch.cuda.is_available():
        student.model.cuda()
        taught.model.cuda()
    val = decode(scan(data).val, student.input)
    learner, master = deploy(student.model, student.input), deploy(taught.model, taught.input)
    reference = predict(master, val.images)
    answers = predict(learner, val.images, reference.explained_class)
    pearson = pair_pearson(reference, answers)
    record = read_run(run)
    figures: dict[str, object] = {
        "top1": 100 * metrics.top1_accuracy(answers.logits, val.targets),
        "agreement": 100 * metrics.agreement(reference.logits, answers.logits),
        "map_pearson": float(np.nanmean(pearson)),
        "map_pearson_p5": float(np.nanpercentile(pearson, 5)),
        "parameters": student.parameters,
        "epochs": record.recipe["epochs"],
        "seconds": record.result["seconds"],
        "size": student.input.height,
        "device": record.device,
    }
    boxes_file = data / "boxes.csv"
    if boxes_file.is_file():
        from PIL import Image

        with boxes_file.open() as lines:
            boxes = {row["file"]: [float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in csv.DictReader(lines)}
        named = [index for index, sample in enumerate(val.samples) if sample.name in boxes]
        found = predict(learner, val.images[named], val.targets[named])
        scores, centre, side = [], [], student.input.height
        for saliency_map, sample in zip(found.maps, (val.samples[index] for index in named), strict=True):
            with sample.open() as picture:
                width, height = picture.size
            left, top, right, bottom = visible_box(height, width, student.input)
            x1, y1, x2, y2 = boxes[sample.name]
            sx, sy = side / (right - left), side / (bottom - top)
            box = np.array([[(x1 - left) * sx, (y1 - top) * sy, (x2 - left) * sx, (y2 - top) * sy]], dtype=np.float32)
            large = np.asarray(Image.fromarray(saliency_map).resize((side, side), Image.Resampling.BICUBIC))
            scores.append(float(metrics.pointing_game(large[None], box)[0]))
            centre.append(float(box[0, 0] <= side / 2 < box[0, 2] and box[0, 1] <= side / 2 < box[0, 3]))
        figures["pointing"] = 100 * statistics.mean(scores)
        figures["pointing_centre"] = 100 * statistics.mean(centre)
    return figures


def table(results: list[dict[str, object]]) -> str:
    """The README's table, in Markdown."""
    shown = [name for name in FIGURES if name in results[0]]
    lines = [
        "| images | model | " + " | ".join(FIGURES[name] for name in shown) + " |",
        "|---" * (len(shown) + 2) + "|",
    ]
    for images, method in dict.fromkeys((row["images"], row["method"]) for row in results):
        rows = [row for row in results if (row["images"], row["method"]) == (images, method)]
        cells = []
        for name in shown:
            values = [float(str(row[name])) for row in rows]
            digits = 3 if name == "map_pearson" else 1
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
        lines.append(f"| {images} | {method} | " + " | ".join(cells) + " |")
    if "pointing_centre" in results[0]:
        dashes = " | –" * (len(shown) - 1)
        lines.insert(3, f"| – | a guess at the centre{dashes} | {float(str(results[0]['pointing_centre'])):.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

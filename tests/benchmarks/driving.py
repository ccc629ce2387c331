"""Measure a classifier of traffic signs on unknown signs, in bad light and with unreadable frames.

```
python tests/benchmarks/driving.py gtsrb22 --weights tf_efficientnet_lite0.safetensors
```

Every fifth class of GTSRB is left out of training: these signs exist on the road, but not for the model. The teacher is
EfficientNet-Lite0 at 96 px, fine-tuned on the other classes, and the student `resnet10w16` at 64 px, distilled with
soft labels and maps. The first table has the validation images: those of known signs as they are, in other light and
weather, and those of the left-out signs. An image is answered unless its familiarity is below the threshold of the
file. `answered, wrong` is the dangerous column.

Then a folder of readable, truncated, empty and mislabeled files goes through `kdedge run`, which has to answer exactly
the readable ones. Last are the checks of `kdedge validate` that did not pass: on the validation images, and on the same
images at night. Draws the three kinds of answers to answers.png in --out. Complete runs in --out are not repeated.
"""

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from answer_sheet import write_sheet
from PIL import Image, ImageFilter
from quality import kdedge

from kdedge.data import index_dataset
from kdedge_runtime import Model

FOLD, FOLDS = 0, 5
FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
READABLE, DAMAGED = 40, 5
Pixels = np.ndarray[Any, Any]


def scaled(factor: float, noise: float = 0.0) -> Callable[[Pixels, int], Pixels]:
    """Return a function that multiplies the pixel values, and adds noise with this standard deviation."""

    def scale(pixels: Pixels, number: int) -> Pixels:
        added = np.random.default_rng(number).normal(0, noise, pixels.shape)
        return np.clip(pixels * factor + added, 0, 255).round().astype(np.uint8)

    return scale


def fog(pixels: Pixels, _: int) -> Pixels:
    return np.asarray(pixels * 0.35 + 200 * 0.65).round().astype(np.uint8)


def blur(pixels: Pixels, _: int) -> Pixels:
    """Blur by 4% of the width, in pixels of the input size."""
    small = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
    return np.asarray(small.filter(ImageFilter.GaussianBlur(2.5)))


CONDITIONS: dict[str, Callable[[Pixels, int], Pixels]] = {
    "as they are": scaled(1),
    "dusk: brightness × 0.6": scaled(0.6),
    "sun: brightness × 1.5": scaled(1.5),
    "night: brightness × 0.15 and noise": scaled(0.15, 4),
    "fog: 65% gray": fog,
    "out of focus": blur,
}
NIGHT = "night: brightness × 0.15 and noise"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of gtsrb22.py")
    parser.add_argument("--weights", type=Path, required=True, help="weights of EfficientNet-Lite0")
    parser.add_argument("--epochs", type=int, default=20, help="of the student")
    parser.add_argument("--out", type=Path, default=Path("runs/driving"))
    options = parser.parse_args()
    left_out = index_dataset(options.data).labels[FOLD::FOLDS]
    run = distill(options, left_out)
    models = {name: Model.load(run / file) for name, file in FILES.items()}
    known, unknown = images(options.data, left_out, known=True), images(options.data, left_out, known=False)
    rows = [
        (f"known signs, {name}", [(label, change(pixels, number)) for number, (label, pixels) in enumerate(known)])
        for name, change in CONDITIONS.items()
    ]
    rows += [("left-out signs", unknown), ("black frames", [("", np.zeros_like(pixels)) for _, pixels in known[:20]])]
    print(table(models, rows))
    print(unreadable(run, [pixels for _, pixels in known], options.out / "frames"))
    for title, data in (("as they are", None), ("at night", at_night(options.data, left_out, options.out / "night"))):
        print(f"\nkdedge validate, {title}:")
        print("\n".join(refused(run, data, options.out / f"report {title}")))
    draw(run, known, unknown, options.out / "answers.png")


def distill(options: argparse.Namespace, left_out: tuple[str, ...]) -> Path:
    """Train the teacher, distill the student and export it, without the left-out classes."""
    shared = ["--no-flip", *(word for label in left_out for word in ("--leave-out", label))]
    out: Path = options.out
    teacher, run = out / "teacher", out / "student"
    trained = ["--model", "timm:tf_efficientnet_lite0", "--weights", str(options.weights), "--size", "96"]
    trained += ["--epochs", "5"]
    kdedge("train", str(options.data), *trained, *shared, "--out", str(teacher))
    taught = ["--teacher", str(teacher), "--student", "resnet10w16", "--size", "64", "--cache-teacher", "4"]
    taught += ["--recipe", "default", "--epochs", str(options.epochs)]
    kdedge("distill", str(options.data), *taught, *shared, "--out", str(run))
    if not (run / FILES["int8"]).is_file():
        subprocess.run([sys.executable, "-m", "kdedge", "export", str(run), "--quantize"], check=True)
    return run


def images(data: Path, left_out: tuple[str, ...], *, known: bool) -> list[tuple[str, Pixels]]:
    """Return the validation images of the known or of the left-out classes, with their labels."""
    files = sorted(file for file in (data / "val").glob("*/*") if (file.parent.name not in left_out) == known)
    return [(file.parent.name, np.asarray(Image.open(file).convert("RGB"))) for file in files]


def answer(model: Model, pixels: Pixels) -> tuple[str, bool]:
    """Return the nearest class of an image, and whether it is unknown."""
    found = model.predict(model.metadata.input.preprocess(pixels)[None])
    familiarity = model.metadata.familiarity
    assert familiarity is not None and familiarity.threshold is not None and found.familiarity is not None
    return model.metadata.labels[int(found.logits[0].argmax())], bool(found.familiarity[0] < familiarity.threshold)


def table(models: dict[str, Model], rows: list[tuple[str, list[tuple[str, Pixels]]]]) -> str:
    """Return the answers of each file as a Markdown table."""
    columns = [f"{name}: {column} %" for name in models for column in ("answered, right", "answered, wrong", "unknown")]
    lines = [f"| validation images | n | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name, samples in rows:
        cells = []
        for model in models.values():
            answers = [(label, *answer(model, pixels)) for label, pixels in samples]
            right = np.mean([label == nearest and not unknown for label, nearest, unknown in answers])
            is_unknown = np.mean([unknown for _, _, unknown in answers])
            cells += [f"{100 * share:.1f}" for share in (right, 1 - right - is_unknown, is_unknown)]
        lines.append(f"| {name} | {len(samples)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def unreadable(run: Path, pixels: list[Pixels], folder: Path) -> str:
    """Predict a folder with damaged files, and return which files were answered and the log of the command."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(READABLE):
        Image.fromarray(pixels[number]).save(folder / f"readable-{number:02}.jpg")
    for number in range(DAMAGED):
        encoded = io.BytesIO()
        Image.fromarray(pixels[number]).save(encoded, "JPEG")
        (folder / f"truncated-{number}.jpg").write_bytes(encoded.getvalue()[: len(encoded.getvalue()) // 2])
        (folder / f"empty-{number}.jpg").write_bytes(b"")
        (folder / f"text-{number}.jpg").write_text("no image")
    command = [sys.executable, "-m", "kdedge", "run", str(run / FILES["int8"]), "--source", str(folder), "--jsonl", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in map(json.loads, done.stdout.splitlines()) if "summary" not in line]
    kinds = [line["name"].partition("-")[0] for line in lines]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("readable", "truncated", "empty", "text"))
    return f"\nAnswered of {READABLE} readable and {3 * DAMAGED} damaged files: {counts}\n{done.stderr.strip()}"


def at_night(data: Path, left_out: tuple[str, ...], folder: Path) -> Path:
    """Write the validation images of the known classes as they are at night."""
    for number, (label, pixels) in enumerate(images(data, left_out, known=True)):
        file = folder / label / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(CONDITIONS[NIGHT](pixels, number)).save(file)
    return folder


def refused(run: Path, data: Path | None, report: Path) -> list[str]:
    """Return the exit code of the gate and the checks that did not pass."""
    command = [sys.executable, "-m", "kdedge", "validate", str(run), "--out", str(report)]
    done = subprocess.run([*command, *([] if data is None else ["--data", str(data)])], check=False)
    checks = json.loads((report / "report.json").read_text(encoding="utf-8"))["checks"]
    lines = [
        f"- {check['name']}: {check['measured']} {check['unit']}, expected {check['relation']} {check['bound']}, "
        f"interval {check['interval']}: {check['outcome']}"
        for check in checks
        if check["outcome"] != "passed"
    ]
    return [f"exit code {done.returncode}, {len(checks)} checks", *lines]


def draw(run: Path, known: list[tuple[str, Pixels]], unknown: list[tuple[str, Pixels]], target: Path) -> None:
    """Draw the answers to a known sign by day and at night, and to a left-out sign, as `kdedge run` does."""
    shown = max((pixels for _, pixels in known), key=np.size)
    samples = [shown, CONDITIONS[NIGHT](shown, 0), max((pixels for _, pixels in unknown), key=np.size)]
    folders = []
    for number, pixels in enumerate(samples):
        source, drawn = target.with_name(f"sample-{number}.png"), target.with_name(f"answer-{number}")
        Image.fromarray(pixels).save(source)
        command = [sys.executable, "-m", "kdedge", "run", str(run / FILES["int8"]), "--source", str(source)]
        subprocess.run([*command, "-o", str(drawn)], capture_output=True, check=True)
        folders.append(drawn)
    write_sheet(folders, target, width=240)


if __name__ == "__main__":
    main()

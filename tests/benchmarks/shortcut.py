"""Measure whether maps expose a shortcut, and whether a clean teacher's maps remove it from a student.

```
python tests/benchmarks/shortcut.py chest-xray-28
```

The data are chest X-rays of 28 px in `train/`, `val/` and `test/` (PneumoniaMNIST). A white marker of 3×3 px is
planted in the upper left of 95% of the pneumonia images and 5% of the normal ones, in training and validation, as
hospitals leave letters on films. Students see only such marked images. They are tested on the test images in three
forms: without a marker, with the marker as in training, and with the marker on the other class instead.

The teachers are a network trained on the marked images and one trained on clean images. `evidence on the marker` is
the share of the positive map of the class pneumonia on the marker, on test images that all have one; a uniform map has
the share of its area. Figures are of the best epoch on the validation images, marked as in training. Prints one JSON
line per model, and a table: mean and standard deviation over the seeds. Draws the maps of a normal image with the
marker to maps.png in --out. Complete runs in --out are not repeated. No
medical claim is made.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from quality import kdedge

MARKER = (2, 2, 5, 5)
"""Left, top, right and bottom of the marker in pixels."""
SHARE = 0.95
SICK = "pneumonia"
STUDENTS: dict[str, tuple[str | None, str | None]] = {
    "student alone": (None, None),
    "KD, marked teacher": ("marked", "ce:0.1,kd:0.9"),
    "KD + mapall, marked teacher": ("marked", "ce:0.1,kd:0.9,mapall"),
    "KD, clean teacher": ("clean", "ce:0.1,kd:0.9"),
    "KD + mapall, clean teacher": ("clean", "ce:0.1,kd:0.9,mapall"),
}
"""Teacher and loss of each student."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/, val/ and test/ of two classes")
    parser.add_argument("--teacher", default="small:resnet20")
    parser.add_argument("--student", default="small:resnet8")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/shortcut"))
    options = parser.parse_args()
    clean, marked = options.out / "clean", options.out / "marked"
    plant(options.data, clean, marked=False)
    plant(options.data, marked, marked=True)
    results = []
    for seed in options.seeds:
        teachers = {}
        for name, data in (("clean", clean), ("marked", marked)):
            teachers[name] = options.out / f"teacher-{name}-{seed}"
            train(["train", str(data), "--model", options.teacher], teachers[name], options.epochs, seed)
            results.append(measure(f"teacher, {name}", seed, teachers[name], options.data))
        for title, (taught_by, loss) in STUDENTS.items():
            run = student_run(options.out, title, seed)
            if taught_by is None or loss is None:
                command = ["train", str(marked), "--model", options.student]
            else:
                command = ["distill", str(marked), "--teacher", str(teachers[taught_by]), "--loss", loss]
                command += ["--student", options.student]
            train(command, run, options.epochs, seed)
            results.append(measure(title, seed, run, options.data))
    print(table(results))
    draw(options.data, options.out, options.seeds[0])


def train(command: list[str], run: Path, epochs: int, seed: int) -> None:
    """Train a run without flips, since the marker has a side, and export it."""
    kdedge(*command, "--out", str(run), "--epochs", str(epochs), "--seed", str(seed), "--no-flip", "--size", "28")
    if not (run / "model.onnx").is_file():
        import kdedge as toolkit

        toolkit.export(run)


def plant(source: Path, target: Path, *, marked: bool) -> None:
    """Copy the training and validation images, with the marker if wanted; which images have it is fixed."""
    if target.is_dir():
        return
    partial = target.with_name(f"{target.name}.partial")
    for side in ("train", "val"):
        for file in sorted((source / side).glob("*/*")):
            pixels = np.asarray(Image.open(file).convert("RGB")).copy()
            rng = np.random.default_rng([ord(letter) for letter in f"{side}/{file.parent.name}/{file.name}"])
            share = SHARE if file.parent.name == SICK else 1 - SHARE
            if marked and rng.random() < share:
                mark(pixels)
            written = partial / side / file.parent.name / f"{file.stem}.png"
            written.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(written)
    partial.replace(target)


def mark(pixels: np.ndarray[Any, Any]) -> None:
    """Paint the marker into an image `[H, W, 3]` in place."""
    left, top, right, bottom = MARKER
    pixels[top:bottom, left:right] = 255


def measure(title: str, seed: int, run: Path, data: Path) -> dict[str, Any]:
    """Return the accuracy on each form of the test images in %, and the share of the evidence on the marker."""
    from kdedge_export.metrics.localization import localize
    from kdedge_runtime import Model

    model = Model.load(run / "model.onnx")
    labels, spec = model.metadata.labels, model.metadata.input
    sick = labels.index(SICK)
    files = sorted((data / "test").glob("*/*"))
    truth = np.array([labels.index(file.parent.name) for file in files])
    plain = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    with_marker = plain.copy()
    for pixels in with_marker:
        mark(pixels)
    drawn = np.random.default_rng(0).random(len(files))
    has_marker = np.where(truth == sick, drawn < SHARE, drawn < 1 - SHARE)
    forms = {"unmarked": np.zeros(len(files), bool), "marked": has_marker, "swapped": ~has_marker}
    result: dict[str, Any] = {"model": title, "seed": seed}
    for name, chosen in forms.items():
        images = np.where(chosen[:, None, None, None], with_marker, plain)
        logits = predict(model, images, None)[0]
        result[name] = 100 * float((logits.argmax(axis=1) == truth).mean())
    _, maps = predict(model, with_marker, sick)
    region = np.zeros(spec.shape[:2], bool)
    left, top, right, bottom = MARKER
    region[top:bottom, left:right] = True
    _, energies = localize(maps, [region] * len(maps), model.metadata.outputs.display.shift)
    result["evidence"] = 100 * float(np.nan_to_num(energies).mean())
    result["area"] = 100 * float(region.mean())
    print(json.dumps(result), flush=True)
    return result


def predict(model: Any, images: np.ndarray[Any, Any], class_index: int | None) -> tuple[Any, Any]:
    """Return the logits and maps of images of the input size."""
    samples = np.stack([model.metadata.input.preprocess(image) for image in images])
    parts = [model.predict(samples[start : start + 64], class_index) for start in range(0, len(samples), 64)]
    return tuple(np.concatenate([getattr(part, name) for part in parts]) for name in ("logits", "saliency_map"))


def student_run(out: Path, title: str, seed: int) -> Path:
    """Return the run folder of a student."""
    return out / f"{title.replace(' ', '-').replace(',', '').replace('+', 'and')}-{seed}"


def draw(data: Path, out: Path, seed: int) -> None:
    """Draw the maps of the class pneumonia for a normal test image with the marker, one for each student."""
    from kdedge_export.modalities.image import IMAGE
    from kdedge_runtime import Model

    file = sorted((data / "test" / "normal").glob("*"))[0]
    pixels = np.asarray(Image.open(file).convert("RGB")).copy()
    mark(pixels)
    panels = []
    for title in ("student alone", "KD, clean teacher", "KD + mapall, clean teacher"):
        model = Model.load(student_run(out, title, seed) / "model.onnx")
        found = model.predict(pixels[None], model.metadata.labels.index(SICK))
        assert found.saliency_map is not None
        panels.append(IMAGE.overlay(pixels, found.saliency_map[0], model.metadata.outputs.display.shift))
    Image.fromarray(np.concatenate(panels, axis=1)).save(out / "maps.png")


def table(results: list[dict[str, Any]]) -> str:
    """Format the table of the docs as Markdown."""
    columns = {"unmarked": "unmarked %", "marked": "marked as in training %", "swapped": "marker swapped %"}
    columns["evidence"] = "evidence on the marker %"
    lines = ["| model | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for title in dict.fromkeys(row["model"] for row in results):
        cells = []
        for name in columns:
            values = [row[name] for row in results if row["model"] == title]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines.append(f"| uniform map | | | | {results[0]['area']:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

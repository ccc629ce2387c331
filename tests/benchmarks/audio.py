"""Measure keyword spotting on speakers that no network was trained on.

```
python tests/benchmarks/audio.py spoken-digits.zip --embedding embedding_model.onnx
```

Spoken digits of five speakers (Free Spoken Digit Dataset, CC BY-SA 4.0). Each fold leaves out one speaker as the test
split; every tenth take of the others is the validation split. Fifty takes a digit and speaker.

- `teacher`: Google's speech embedding with a last layer fitted on the four speakers (`kdedge train --freeze`);
- `alone`: the student with labels only;
- `kd`: distilled with soft labels; `kd + mapall`: and with the maps of the teacher;
- `fp32`, `int8`: the files of the student `kd + mapall`.

All students have the same network, augmentation and number of epochs. Accuracy and maps are those of the last epoch, so
nothing is selected on the left-out speaker. The files are of the best epoch on the other speakers, and `best epoch` is
its PyTorch model. The map correlation is that with the teacher's map of its top class.
Latency is that of one window with one thread on this machine; the real-time factor is its share of the window. Prints
one JSON line per fold and model, and a table of means with the standard deviation over speakers. Complete runs in --out
are not repeated.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdedge.data import decode, index_dataset
from kdedge.models.run_folder import is_run, read_run
from kdedge_runtime import Model
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.util.timing import fastest_ms

STUDENT, EPOCHS, VIEWS = "resnet8", 120, 20
TAKE = re.compile(r"(?P<speaker>[a-z]+)_(?P<take>\d+)\.wav")
RECIPE = """
[loss]
{loss}

[augmentation]
shift = 0.15
geometry = 0.5
photometric = 1.0
erase = 0.3
"""
LOSSES = {"alone": "ce = 1", "kd": "ce = 0.1\nkd = 0.9", "kd + mapall": "ce = 0.1\nkd = 0.9\nmapall = 20"}
EXPORTED = "kd + mapall"
BATCH = 50
FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}


def write_folds(archive: Path, out: Path) -> list[str]:
    """Extract the archive, and write a dataset with a test speaker for each fold; return the speakers."""
    digits = out / "digits"
    if not digits.exists():
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(digits)
    files = [(path, found) for path in sorted(digits.rglob("*.wav")) if (found := TAKE.fullmatch(path.name))]
    speakers = sorted({found["speaker"] for _, found in files})
    for left_out in speakers:
        fold = out / left_out / "data"
        if fold.exists():
            continue
        for path, found in files:
            side = "val" if int(found["take"]) % 10 == 0 else "train"
            side = "test" if found["speaker"] == left_out else side
            target = fold / side / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return speakers


def kdedge(*arguments: object) -> None:
    """Run a command; its output is that of this program."""
    subprocess.run([sys.executable, "-m", "kdedge", *map(str, arguments)], check=True, stdout=sys.stderr)


def train_fold(fold: Path, embedding: Path, epochs: int, views: int) -> None:
    """Train the teacher and the students of a fold, and export one, as far as they are missing."""
    data, teacher = fold / "data", fold / "teacher"
    if not is_done(teacher):
        kdedge("train", data, "--model", "audio:speech_embedding", "--weights", embedding, "--freeze", "--out", teacher)
    for method, loss in LOSSES.items():
        run = fold / method.replace(" ", "")
        if is_done(run):
            continue
        recipe = fold / f"{run.name}.toml"
        recipe.write_text(RECIPE.format(loss=loss), encoding="utf-8")
        shared = ["--recipe", recipe, "--epochs", epochs, "--out", run, "--seed", 0]
        if method == "alone":
            kdedge("train", data, "--model", STUDENT, *shared)
        else:
            kdedge(*("distill", data, "--teacher", teacher, "--student", STUDENT, "--cache-teacher", views), *shared)
    run = fold / EXPORTED.replace(" ", "")
    if not (run / "model.int8.onnx").exists():
        kdedge("export", run, "--quantize")


def is_done(run: Path) -> bool:
    """Return True if a run is complete."""
    return is_run(run) and read_run(run).result is not None


def measure_fold(fold: Path) -> dict[str, dict[str, float]]:
    """Return accuracy, map correlation, latency and parameters of every model of a fold."""
    rows = {}
    for name in ("teacher", *LOSSES):
        result = read_run(fold / name.replace(" ", "")).result
        assert result is not None
        tested = result["test"]["last"]
        rows[name] = {"top1": tested["test_top1"]} | {
            key: tested[f"test_{key}"] for key in ("map_pearson",) if f"test_{key}" in tested
        }
    run = fold / EXPORTED.replace(" ", "")
    result = read_run(run).result
    assert result is not None
    rows[f"{EXPORTED}, best epoch"] = {key: result["test"]["best"][f"test_{key}"] for key in ("top1", "map_pearson")}
    models = {name: Model.load(run / file, threads=1) for name, file in FILES.items()}
    spec = models["fp32"].metadata.input
    assert isinstance(spec, AudioInput)
    test = index_dataset(fold / "data").test
    assert test is not None
    sounds = decode(test, spec)
    parts = [sounds.samples[start : start + BATCH] for start in range(0, len(sounds), BATCH)]
    latencies = fastest_ms(*(partial(model.predict, sounds.samples[:1]) for model in models.values()), runs=200)
    for (name, model), latency_ms in zip(models.items(), latencies, strict=True):
        logits = np.concatenate([model.predict(part).logits for part in parts])
        right = logits.argmax(axis=1) == sounds.targets
        rows[name] = {
            "top1": float(right.mean()),
            "ms": latency_ms,
            "real_time_factor": latency_ms / 1e3 / spec.window_s,
        }
    return rows


def table(folds: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the means over speakers as a Markdown table."""
    lines = [
        f"| model | {' | '.join(folds)} | mean ± sd | map Pearson | ms a window |",
        "|---" * (len(folds) + 4) + "|",
    ]
    for name in next(iter(folds.values())):
        tops = [100 * fold[name]["top1"] for fold in folds.values()]
        spread = f"{statistics.mean(tops):.1f} ± {statistics.stdev(tops) if len(tops) > 1 else 0.0:.1f}"
        cells = [f"{top:.1f}" for top in tops] + [spread]
        for key, digits in (("map_pearson", 3), ("ms", 2)):
            values = [fold[name][key] for fold in folds.values() if key in fold[name]]
            cells.append(f"{statistics.mean(values):.{digits}f}" if values else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="spoken-digits.zip")
    parser.add_argument("--embedding", type=Path, required=True, help="embedding_model.onnx of the speech embedding")
    parser.add_argument("--out", type=Path, default=Path("runs/audio"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--views", type=int, default=VIEWS, help="cached views of the teacher")
    parser.add_argument("--folds", type=int, help="number of speakers (default: all)")
    arguments = parser.parse_args()
    folds: dict[str, Any] = {}
    for speaker in write_folds(arguments.archive, arguments.out)[: arguments.folds]:
        fold = arguments.out / speaker
        train_fold(fold, arguments.embedding.resolve(), arguments.epochs, arguments.views)
        folds[speaker] = measure_fold(fold)
        for name, row in folds[speaker].items():
            print(
                json.dumps({"speaker": speaker, "model": name} | {key: round(value, 4) for key, value in row.items()})
            )
    print(table(folds))


if __name__ == "__main__":
    main()

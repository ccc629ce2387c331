"""Test `kdedge export MODEL.onnx` on files written by converters of other frameworks.

    python -m venv keras  && keras/bin/pip  install tensorflow-cpu==2.21.0 tf2onnx==1.17.0
    python -m venv paddle && paddle/bin/pip install paddlepaddle==3.3.1 paddle2onnx==2.1.0
    python -m venv jax    && jax/bin/pip    install jax2onnx==0.17.1
    keras/bin/python tests/benchmarks/foreign_nets.py keras FILES        # and paddle, jax, each in its own environment
    python tests/benchmarks/foreign_files.py FILES ROWS.jsonl [--only PART_OF_A_NAME ...]    # in kdedge's environment

Adds one JSON line per file: the saliency method or the reason for rejection; the errors of its map and of its logits
with preprocessing (`--mean`, `--std`) against the framework's own results for two images (see `foreign_nets`), relative
to the largest value of an image; the largest difference of the file's own outputs, 0 being bit-exact; whether a second
run changes nothing; and which of `kdedge inspect`, `explain` and `run` fail. Existing rows are not measured again.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from foreign_nets import Array, Front
from PIL import Image
from typer.testing import CliRunner

from kdedge.cli.app import app

RUNNER = CliRunner()


def measure(path: Path, folder: Path, *, is_first: bool) -> dict[str, object]:
    """Measure one file; checks that are equal for all files of a network run only for the first."""
    with np.load(path.with_name(".".join(path.name.split(".")[:2]) + ".npz")) as held:
        known = dict(held)
    ours, twice, runs = (folder / name for name in ("ours.onnx", "twice.onnx", "runs.onnx"))
    code, printed = typed("export", path, "-o", ours)
    if code:
        return {"refused": printed}
    outputs = json.loads({item.key: item.value for item in onnx.load(ours).metadata_props}["kdedge.outputs"])
    row = {key: outputs[key] for key in ("method", "head", "target_layer", "map_height", "map_width")}
    row |= _against(path, ours, known)
    typed("export", ours, "-o", twice)
    row["is_idempotent"] = twice.read_bytes() == ours.read_bytes()
    if is_first:
        front = ["--mean", known["mean"], "--std", known["std"], *["--bgr"] * bool(known["bgr"])]
        code, printed = typed("export", path, "-o", runs, *front)
        return row | ({"front_refused": printed} if code else _behind_front(runs, known, folder))
    return row


def typed(*arguments: object) -> tuple[int, str]:
    """Run a kdedge command in this process, without Python's startup time; return its exit code and output."""
    done = RUNNER.invoke(app, [str(part) for part in arguments])
    return done.exit_code, str(done.exception) if done.exit_code else done.output


def _against(path: Path, ours: Path, known: dict[str, Array]) -> dict[str, object]:
    before, after = _session(path), _session(ours)
    port, *unread = before.get_inputs()
    idle = {item.name: np.zeros([size or 1 for size in item.shape], np.float32) for item in unread}
    x = Front(str(known["mean"]), str(known["std"]), bool(known["bgr"]))(known["images"])
    x = x if port.shape[-1] == 3 else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    own = [item.name for item in before.get_outputs()]
    worst, maps = 0.0, []
    for part in _batches(x, port.shape[0]):
        expected = before.run(own, {port.name: part} | idle)
        *found, saliency, _ = after.run([*own, "saliency_map", "explained_class"], {port.name: part})
        maps.append(saliency)
        worst = max(worst, *(error(one, two) for one, two in zip(found, expected, strict=True)))
    return {"output_error": worst, "map_error": error(np.concatenate(maps), known["map"])}


def _behind_front(runs: Path, known: dict[str, Array], folder: Path) -> dict[str, object]:
    session, image = _session(runs), folder / "image.png"
    parts = _batches(known["images"], session.get_inputs()[0].shape[0])
    found = [session.run(["logits", "saliency_map"], {"image": part}) for part in parts]
    logits, saliency = (np.concatenate([item[at] for item in found]) for at in (0, 1))
    Image.fromarray(known["images"][0]).save(image)
    tried = {
        "inspect": (runs, image),
        "explain": (runs, image, "-o", folder / "explained"),
        "run": (runs, "--source", image),
    }
    failed = {verb: printed for verb, given in tried.items() for code, printed in [typed(verb, *given)] if code}
    return {
        "logit_error": error(logits, known["logits"]),
        "map_error_behind_front": error(saliency, known["map"]),
        "commands_that_fail": failed,
    }


def _batches(images: Array, batch: object) -> list[Array]:
    return [images[:1], images[1:]] if isinstance(batch, int) else [images]


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def error(measured: Array, expected: Array) -> float:
    """Compute the largest difference relative to the largest value of the same image; infinite for different shapes."""
    if measured.shape != expected.shape:
        return float("inf")
    axes = tuple(range(1, expected.ndim))
    return float((np.abs(measured - expected).max(axes) / np.abs(expected).max(axes)).max())


def rows(folder: Path, done: set[str], only: list[str]) -> Iterator[dict[str, object]]:
    """Yield rows of the files that are not measured yet."""
    for path in sorted(folder.glob("*.onnx")):
        network = path.name.rpartition(".onnx")[0].split(".")[:2]
        first = min(folder.glob(f"{'.'.join(network)}.*.onnx"))
        if path.name in done or (only and not any(part in path.name for part in only)):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            yield {"file": path.name, **measure(path, Path(scratch), is_first=path == first)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    parsed = parser.parse_args()
    lines = parsed.rows.read_text().splitlines() if parsed.rows.is_file() else []
    known: list[dict[str, Any]] = [json.loads(line) for line in lines]
    with parsed.rows.open("a") as file:
        for row in rows(parsed.files, {row["file"] for row in known}, parsed.only):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

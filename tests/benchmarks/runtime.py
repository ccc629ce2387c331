"""Benchmark the runtime: throughput, frame age, startup time, memory and size.

```
kdedge export timm:tf_efficientnet_lite0 --weights W.safetensors -o lite0.onnx
kdedge export torchvision:mobilenet_v3_small --no-pretrained -o small.onnx
python tests/benchmarks/runtime.py lite0.onnx --video FILM.mp4 --only realtime throughput cost
python tests/benchmarks/runtime.py small.onnx --only start memory size
```

Prints one JSON line per figure. Every run is a command in a separate process; references are measured alternately, so
that a slowdown of the machine affects both. Figures are medians over the repeats.

realtime    a video played at its own rate, with the newest frame processed: age, and the fraction of the reachable
rate, which is the rate of the video or, if slower, of inference alone throughput  every frame at maximum speed: the
fraction of the rate of inference alone, with and without the overlay cost        one pass with the map, and of the same
graph without it (`kdedge-run bench MODEL`); one overlay start       from the start of the process to the first
explained frame, beyond `import onnxruntime`; and its CPU time, which is less sensitive to a busy machine memory
peak of a run over photos, compared with a bare session; on Linux size        of the installed files, compared with
those of numpy, onnxruntime and Pillow
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

PHOTO_SIZE = (640, 480)
PHOTOS = 30
CASES = ("realtime", "throughput", "cost", "start", "memory", "size")
RUN = [sys.executable, "-c", "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"]
BARE = """
import resource, sys
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 3
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(image, *_) = session.get_inputs()
for _ in range(20):
    session.run(None, {image.name: np.zeros((1, *image.shape[1:]), np.uint8)})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
PEAK = """
import resource, sys
from kdedge_runtime.cli.main import main
code = main(sys.argv[1:])
assert "cv2" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--video", type=Path, help="video for realtime and throughput")
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=300, help="frames per run of realtime and throughput")
    arguments = parser.parse_args()
    if arguments.video is None and {"realtime", "throughput"} & set(arguments.only):
        parser.error("realtime and throughput need a --video")
    cases: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "realtime": realtime,
        "throughput": throughput,
        "cost": cost,
        "start": start,
        "memory": memory,
        "size": size,
    }
    for name in arguments.only:
        figures = cases[name](arguments)
        print(json.dumps({"case": name, "model": arguments.model.name, "threads": arguments.threads} | figures))
        sys.stdout.flush()


def realtime(arguments: argparse.Namespace) -> dict[str, Any]:
    shares, summaries = [], []
    for _ in range(arguments.repeats):
        bare = inference_fps(arguments)
        summary = run(arguments, arguments.video, "--frames", "latest", "--max-frames", str(arguments.frames))
        shares.append(summary["fps"] / min(bare, summary["source_fps"]))
        summaries.append(summary | {"bare_fps": bare})
    best = summaries[shares.index(statistics.median_low(shares))]
    return {
        "share": round(statistics.median(shares), 3),
        "shares": [round(share, 3) for share in shares],
        "age_ms": best["latency_ms"]["age"],
        "fps": best["fps"],
        "source_fps": best["source_fps"],
        "inference_only_fps": round(best["bare_fps"], 1),
        "dropped": best["dropped"],
    }


def throughput(arguments: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, output in (("plain", []), ("drawn_and_recorded", ["-o", f"{folder}/seen.mp4"])):
            shares, of_itself = [], []
            for _ in range(arguments.repeats):
                before = inference_fps(arguments)
                summary = run(
                    arguments, arguments.video, "--frames", "all", "--max-frames", str(arguments.frames), *output
                )
                shares.append(summary["fps"] / statistics.mean((before, inference_fps(arguments))))
                of_itself.append(summary["fps"] / summary["model_fps"])
            figures[name] = {
                "share": round(statistics.median(shares), 3),
                "shares": [round(share, 3) for share in shares],
                "share_of_own_passes": round(statistics.median(of_itself), 3),
                "fps": summary["fps"],
            }
    return figures


def cost(arguments: argparse.Namespace) -> dict[str, Any]:
    command = [*RUN, "bench", str(arguments.model), "--json", "--threads", str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (explained, plain, *_) = json.loads(done.stdout)["timings"]
    return {"with_map_ms": explained["p50_ms"], "logits_only_ms": plain["p50_ms"], "ratio": 1 / plain["ratio"]}


def start(arguments: argparse.Namespace) -> dict[str, Any]:
    imports, runs = [], []
    with photos(1) as folder:
        command = [*RUN, str(arguments.model), "--source", str(folder), "--threads", str(arguments.threads)]
        for _ in range(arguments.repeats):
            imports.append(timed([sys.executable, "-c", "import onnxruntime; print()"]))
            runs.append(timed([*command, "--jsonl", "-"]))
    beyond = [(run[0] - alone[0], run[1] - alone[1]) for run, alone in zip(runs, imports, strict=True)]
    return {
        "beyond_import_s": round(statistics.median(wall for wall, _ in beyond), 3),
        "beyond_import_cpu_s": round(statistics.median(cpu for _, cpu in beyond), 3),
        "least_beyond_import_s": round(min(wall for wall, _ in beyond), 3),
        "import_onnxruntime_s": round(statistics.median(wall for wall, _ in imports), 3),
    }


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    def peak_mb(program: str, *options: str) -> float:
        command = [sys.executable, "-c", program, str(arguments.model), *options]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    with photos(PHOTOS) as folder:
        run_mb = [
            peak_mb(PEAK, "--source", str(folder), "--jsonl", f"{folder}/a.jsonl") for _ in range(arguments.repeats)
        ]
    bare_mb = [peak_mb(BARE) for _ in range(arguments.repeats)]
    return {"peak_mb": round(statistics.median(run_mb), 1), "bare_session_mb": round(statistics.median(bare_mb), 1)}


def installed(package: str) -> list[Path]:
    return [Path(str(file.locate())) for file in files(package) or ()]


def size(arguments: argparse.Namespace) -> dict[str, Any]:
    import kdedge_runtime

    root = Path(kdedge_runtime.__file__).parent
    ours = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    others = {
        name: sum(path.stat().st_size for path in installed(name) if path.is_file())
        for name in ("numpy", "onnxruntime", "pillow")
    }
    return {"kdedge_runtime_mb": round(ours / 1e6, 2)} | {f"{key}_mb": round(b / 1e6, 1) for key, b in others.items()}


def run(arguments: argparse.Namespace, source: Path, *options: str) -> dict[str, Any]:
    """Run the command and return the figures of its summary."""
    command = [*RUN, str(arguments.model), "--source", str(source), "--threads", str(arguments.threads), "--jsonl", "-"]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["summary"]
    return summary


def inference_fps(arguments: argparse.Namespace, passes: int = 100) -> float:
    """Measure the rate of inference alone in passes per second."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = arguments.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(arguments.model), options, providers=["CPUExecutionProvider"])
    (image, *_) = session.get_inputs()
    feed = {image.name: np.random.default_rng(0).integers(0, 256, (1, *image.shape[1:]), dtype=np.uint8)}
    for _ in range(5):
        session.run(None, feed)
    started = time.perf_counter()
    for _ in range(passes):
        session.run(None, feed)
    return passes / (time.perf_counter() - started)


def timed(command: list[str]) -> tuple[float, float]:
    """Return the seconds until a program writes its first line, and its total CPU time."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        elapsed_s = time.perf_counter() - started
        process.stdout.read()
    assert process.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class photos:
    """Context manager for a folder of noisy photos."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Path:
        folder = Path(self._folder.name)
        generator = np.random.default_rng(0)
        for index in range(self._count):
            coarse = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(PHOTO_SIZE, Image.Resampling.BICUBIC).save(folder / f"{index}.jpg")
        return folder

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


if __name__ == "__main__":
    main()

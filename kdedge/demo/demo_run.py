"""The complete pipeline on drawn samples with known evidence."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kdedge.config.train_config import TrainConfig
from kdedge.demo import DEMOS
from kdedge.demo.demo_scenario import DemoScenario, Masks
from kdedge.models.trained_model import load_trained
from kdedge.pipelines.model_export import export_model
from kdedge.pipelines.model_validation import Validation, validate_model
from kdedge.training.run_callback import RunCallback
from kdedge.training.training_run import start_run
from kdedge_export.metrics import map_similarity
from kdedge_export.torch_export import wrap_for_export
from kdedge_runtime import Model
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.devices import load_profile
from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.precision import fastest
from kdedge_runtime.sinks.json_lines import JsonLinesFile
from kdedge_runtime.sinks.video_file import VideoFile
from kdedge_runtime.stream.runner import run
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.files import atomic_write
from kdedge_runtime.util.timing import latencies_ms

__all__ = ["DemoResult", "DemoRow", "run_demo"]

_MARKER = "demo.json"
_TIMED_RUNS = 200
"""Timed passes of each file; the student takes less than a millisecond, and files differ by a few percent."""

PrintHeading = Callable[[str], None]


@dataclass(frozen=True)
class DemoRow:
    """One model in the demo's results table."""

    title: str
    megabytes: float
    top1: float
    """Top-1 accuracy in [0, 1]."""
    agreement: float | None
    """Top-1 agreement in [0, 1] with the model it was derived from, or None."""
    map_pearson: float | None
    """Mean map correlation over images with the model it was derived from, or None."""
    energy_inside: float
    """Fraction of the map's positive part inside the mask in [0, 1], mean over samples."""
    latency_ms: float
    """Latency per sample in ms on one thread: PyTorch for modules, onnxruntime for files."""
    is_fastest: bool
    """True for the file to run on machines like this one; a less exact one only if it is at least 5% faster."""


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo."""

    scenario: DemoScenario
    rows: tuple[DemoRow, ...]
    mask_share: float
    """Mean area of the masks as a fraction of the map, which is the score of a uniform map."""
    validation: Validation
    fastest: Path
    """Model file to run on machines like this one."""
    stream_right: float
    """Top-1 accuracy on the frames of the source, in [0, 1]."""
    seconds: float


def run_demo(modality: str, out: Path, callback: RunCallback, print_heading: PrintHeading) -> DemoResult:
    """Draw samples, train a teacher, distill, export, quantize, validate, and run on a source.

    Args:
        modality: key of `DEMOS`.
        out: output folder; an earlier demo in it is replaced.
        callback: training callback.
        print_heading: prints a heading.

    Raises:
        UsageError: `out` holds something other than an earlier demo.
        KdedgeError: training was interrupted by SIGTERM.
    """
    started = time.monotonic()
    scenario = DEMOS[modality]
    _clear(out)
    sizes, labels = scenario.sizes, scenario.labels
    count = (sizes.train + sizes.val + sizes.unseen) * len(labels)
    print_heading(f"1/6  Draw {count:,} {scenario.noun} of {len(labels)} classes")
    data, unseen = out / scenario.noun, out / "unseen"
    scenario.write(data, sizes.train, sizes.val, seed=0)
    masks = scenario.write(unseen, 1, sizes.unseen, seed=1)  # a dataset needs a training split
    print_heading("2/6  Train a teacher")
    teacher, student = out / "teacher", out / "student"
    _train(scenario.teacher(data), teacher, callback)
    print_heading("3/6  Distill a student with saliency-map supervision")
    _train(scenario.student(data, teacher), student, callback)
    print_heading("4/6  Export to ONNX, fp32 and int8")
    export_model(str(student), precisions=["int8"], profile=load_profile("generic"))
    print_heading("5/6  Validate predictions and maps")
    validation = validate_model(str(student), data=str(unseen))
    print_heading(f"6/6  Run on {counted(sizes.frames, 'frame')} of a source")
    right = _watch(scenario, validation.model, out)
    candidates = validation.report.candidates
    files = {each.name: each.path for each in candidates if each.path is not None}
    latencies = _file_latencies(files)
    chosen = fastest(latencies)
    latencies |= {role: _torch_latency(str(run)) for role, run in (("teacher", teacher), ("student", student))}
    return DemoResult(
        scenario=scenario,
        rows=tuple(
            _row(candidate, validation, masks, latencies[candidate.name], is_fastest=candidate.name == chosen)
            for candidate in candidates
        ),
        fastest=files[chosen],
        mask_share=float(np.mean([mask.mean() for mask in masks.values()])),
        validation=validation,
        stream_right=right,
        seconds=time.monotonic() - started,
    )


def _train(plan: TrainConfig, out: Path, callback: RunCallback) -> None:
    if start_run(plan, out, callback, "cpu").result is None:
        raise KdedgeError("The demo was stopped by SIGTERM. Run the command again to restart it.")


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise UsageError(f"{out} is not empty and not an earlier demo. Choose another folder: --out DIR.")
    shutil.rmtree(out, ignore_errors=True)
    atomic_write(out / _MARKER, json.dumps({"made_by": "kdedge demo"}))


def _watch(scenario: DemoScenario, model_path: Path, out: Path) -> float:
    """Run the model on the source of a scenario and return its accuracy."""
    log = out / "predictions.jsonl"
    source = scenario.source(out)
    with (
        source,
        JsonLinesFile(str(log), threading.Event()) as lines,
        VideoFile(out / "overlay.mp4", source.fps, live=source.live) as film,
    ):
        run(Model.load(model_path), source, [lines, film])
    predictions = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()[:-1]]
    return float(np.mean([prediction["label"] == prediction["truth"]["label"] for prediction in predictions]))


def _row(
    candidate: Candidate, validation: Validation, masks: Mapping[str, Masks], latency_ms: float, *, is_fastest: bool
) -> DemoRow:
    report, evidence, role = validation.report, validation.evidence, candidate.name
    facts, compared = report.models[role], report.comparisons.get(role)
    maps = evidence.predictions[role].maps
    assert maps is not None and facts.accuracy is not None
    drawn = np.stack([masks[name] for name in evidence.names])
    inside = map_similarity.energy_inside(_upsampled(maps, drawn.shape[1:]), drawn)
    return DemoRow(
        title=candidate.title,
        megabytes=facts.bytes / 1e6,
        top1=facts.accuracy,
        agreement=None if compared is None else compared.agreement,
        map_pearson=None if compared is None or compared.maps is None else compared.maps.pearson_mean,
        energy_inside=float(np.nanmean(inside)),
        latency_ms=latency_ms,
        is_fastest=is_fastest,
    )


def _upsampled(maps: Floats, size: tuple[int, ...]) -> Floats:
    height, width = size
    return np.stack(
        [np.asarray(Image.fromarray(item).resize((width, height), Image.Resampling.BILINEAR)) for item in maps]
    )


def _file_latencies(paths: Mapping[str, Path]) -> dict[str, float]:
    """Measure the latency of files in ms, alternately, so that other programs disturb all of them alike."""
    models = [Model.load(path, threads=1) for path in paths.values()]
    blank = models[0].metadata.input.reference_sample(0)[None]
    taken = latencies_ms(*(partial(model.predict, blank) for model in models), runs=_TIMED_RUNS)
    return dict(zip(paths, taken, strict=True))


def _torch_latency(run_folder: str) -> float:
    trained = load_trained(run_folder)
    module = wrap_for_export(trained.model, trained.input)
    blank, top = torch.from_numpy(trained.input.reference_sample(0)[None].copy()), torch.tensor([-1])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return latencies_ms(lambda: module(blank, top))[0]
    finally:
        torch.set_num_threads(threads)

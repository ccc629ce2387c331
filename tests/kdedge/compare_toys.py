"""Runs without training: folders with invented metrics and random weights, and predictions of regressions."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_toys import tiny_config

from kdedge.data import index_dataset
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import BEST, METRICS, RunRecord, write_run
from kdedge.pipelines.run_predictions import EvaluatedSamples, RunPredictions
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.checkpoint import save_weights
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_runtime.modalities.image import ImageInput

SIDE = 32
MEAN, STD = 0.5, 0.25
LABELS = ("bottle", "fish", "key")


def epoch_line(epoch: int, top1: float, **others: float) -> dict[str, Any]:
    """Build a line of `metrics.jsonl`."""
    return {
        "epoch": epoch,
        "loss": 2.0 / epoch,
        "lr": 0.1,
        "val_top1": top1,
        "val_loss": 1.0 / epoch,
        "seconds": 1.5,
    } | others


def make_run(
    folder: Path,
    *,
    data: Path | None = None,
    epochs: Sequence[dict[str, Any]] = (epoch_line(1, 0.5), epoch_line(2, 0.75)),
    finished: bool = True,
    seed: int = 0,
    loss: dict[str, float] | None = None,
    measured: tuple[str, ...] = (),
    teacher: dict[str, Any] | None = None,
    request: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
    fingerprint: str = "f" * 64,
    labels: tuple[str, ...] = LABELS,
    task: str = "classify",
) -> Path:
    """Write a run of `small:resnet8` with random weights for its seed; `data` is the recorded dataset location."""
    folder.mkdir(parents=True)
    last = epochs[-1] if epochs else None
    found = index_dataset(data) if data is not None and data.is_dir() else None
    record = RunRecord(
        kind="train" if teacher is None else "distill",
        model=ModelSpec("small:resnet8", len(labels)),
        input=ImageInput(SIDE, SIDE, (MEAN,) * 3, (STD,) * 3),
        labels=labels,
        data={
            "source": str(data or folder / "gone"),
            "fingerprint": fingerprint if found is None else found.fingerprint,
            "split": "folders",
            "train": 48,
            "val": 18,
            "samples_per_class": None,
        },
        recipe=asdict(tiny_config(learning_rate=0.1, loss=loss or {"ce": 1.0}, measured=measured, seed=seed)),
        request={"data": "data", "model": "resnet8", **(request or {})},
        device="CPU",
        task=task,
        teacher=teacher,
        result={
            "best": max(epochs, key=TRAINING_TASKS[task].merit),
            "last": last,
            "seconds": 3.0,
            **(result or {}),
        }
        if finished
        else None,
    )
    write_run(folder, record)
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in epochs), encoding="utf-8")
    if last is not None:
        torch.manual_seed(seed)
        model = build_model(record.model, SIDE)
        save_weights(folder / BEST, model, {"epoch": last["epoch"]})
    return folder


def taught_line(epoch: int, top1: float, agreement: float, pearson: float) -> dict[str, Any]:
    """Build a line of a run with a teacher."""
    return epoch_line(epoch, top1, val_agreement=agreement, val_map_pearson=pearson, val_loss=1.0 / epoch)


def prices(title: str, errors: list[float], *, target: str = "price [EUR]", with_maps: bool = True) -> RunPredictions:
    """Build the predictions of a regression for rows with the measured values 100, 200, …"""
    count = len(errors)
    measured = 100 * np.arange(1, count + 1, dtype=np.float32)
    images = np.full((count, 8, 8, 3), 128, dtype=np.uint8)
    names = tuple(f"rows.csv:{number}" for number in range(count))
    maps = np.random.default_rng(0).normal(size=(count, 4, 4)).astype(np.float32) if with_maps else None
    return RunPredictions(
        title,
        EvaluatedSamples(
            "data", (target,), "f", images, measured, names, ImageInput(8, 8, (0.5,) * 3, (0.25,) * 3), "regression"
        ),
        (target,),
        "regression",
        Predictions((measured + np.float32(errors))[:, None], maps, np.zeros(count, dtype=np.int64)),
    )

"""Tiny labeled images, a recording training callback, and `kdedge` in a subprocess."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kdedge.config.recipe_file import load_recipe
from kdedge.config.resolved_config import ResolvedConfig, resolve_config
from kdedge.config.train_config import TrainConfig
from kdedge.data import index_dataset, load
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.run_folder import METRICS
from kdedge.training.augmentation.augmentation_plan import AugmentationPlan
from kdedge.training.augmentation.image_augmenter import ImageAugmenter
from kdedge.training.builder import build_trainer_parts
from kdedge.training.compute_device import choose_device
from kdedge.training.distributed import ProcessGroup
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.objective import make_objective
from kdedge.training.run_callback import RunCallback
from kdedge.training.sample_store import DeviceSamples
from kdedge.training.teachers.teacher import NetworkTeacher
from kdedge.training.trainer import Trainer
from kdedge_export.scenes import LABELS, render_scene
from kdedge_runtime.modalities.image import ImageInput

SIDE = 32
CLASSES = LABELS[:3]
TRAIN, VAL = 16, 6
"""Number of images per class."""
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
"""Environment of subprocesses: with tiny images threads only wait for each other."""


def write_scenes(root: Path, labels: tuple[str, ...] = CLASSES, train: int = TRAIN, val: int = VAL) -> Path:
    """Render `root/train/CLASS/*.png` and `root/val/CLASS/*.png`, identical on every call."""
    rng = np.random.default_rng(0)
    for side, count in (("train", train), ("val", val)):
        for label in labels:
            (root / side / label).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(render_scene(label, rng, SIDE).image).save(root / side / label / f"{index:02}.png")
    return root


def write_squares(
    root: Path, labels: tuple[str, str, str] = ("red", "green", "blue"), train: int = TRAIN, val: int = VAL
) -> Path:
    """Write easily separable images: a red, green or blue square on gray noise.

    The files are `root/train/CLASS/*.png` and `root/val/CLASS/*.png`, identical on every call.
    """
    rng = np.random.default_rng(0)
    for side, count in (("train", train), ("val", val)):
        for channel, label in enumerate(labels):
            (root / side / label).mkdir(parents=True)
            for index in range(count):
                image = rng.normal(110, 12, (SIDE, SIDE, 1)).repeat(3, axis=2)
                top, left = rng.integers(0, SIDE - SIDE // 3, 2)
                image[top : top + SIDE // 3, left : left + SIDE // 3] = 40
                image[top : top + SIDE // 3, left : left + SIDE // 3, channel] = 230
                pixels = np.clip(image, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / side / label / f"{index:02}.png")
    return root


@dataclass
class Listener(RunCallback):
    """Training callback that records all events."""

    plan: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    evaluated: int = 0
    """Number of batches on which the teacher was evaluated for the cache."""

    def on_plan(self, lines: list[tuple[str, str]], terms: list[str], epochs: int, unit: str | None) -> None:
        self.plan += lines

    def on_warning(self, warning: str) -> None:
        self.warnings.append(warning)

    def on_progress(self, step: str, done: int, total: int, /) -> None:
        self.evaluated += step == "evaluating the teacher"

    def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
        self.steps += 1

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        self.epochs.append(metrics)


@dataclass(frozen=True)
class Outcome:
    """Result of a command: exit code and output."""

    code: int
    out: str
    err: str


def kdedge_command(*arguments: object) -> list[str]:
    """Return the command line of `kdedge` in a new process of this Python."""
    return [sys.executable, "-c", "from kdedge.cli import main; main()", *map(str, arguments)]


def kdedge(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `kdedge` until it exits."""
    return subprocess.run(
        kdedge_command(*arguments), cwd=cwd, env=ONE_THREAD, capture_output=True, text=True, timeout=300, check=False
    )


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl` without durations."""
    lines = [json.loads(line) for line in (run / METRICS).read_text(encoding="utf-8").splitlines()]
    return [without_time(line) for line in lines]


def without_time(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of an epoch without its duration."""
    return {key: value for key, value in metrics.items() if key != "seconds"}


def rewrite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Replace the tensors of a weights file and keep its metadata."""
    with safe_open(path, "pt") as file:
        noted = file.metadata()
    save_file(tensors, path, metadata=noted)


def tiny_config(**changes: Any) -> ResolvedConfig:
    """Return settings for two epochs of cross-entropy, with the given changes."""
    config = resolve_config(
        TrainConfig("photos", "small:resnet8", lr=0.05),
        load_recipe("labels"),
        batch_size=16,
        weights={"ce": 1.0},
        epochs=2,
    )
    return replace(config, **changes)


def tiny_trainer(
    root: Path,
    config: ResolvedConfig,
    *,
    model: str = "small:resnet8",
    teacher: nn.Module | None = None,
    seed: int = 0,
    bf16: bool = False,
) -> Trainer:
    """Build a trainer on the images of `root`, with a student (and a teacher) of 32 px, on the CPU."""
    spec, compute = ImageInput(SIDE, SIDE, (0.5,) * 3, (0.25,) * 3), replace(choose_device("cpu"), bf16=bf16)
    torch.manual_seed(seed)
    student = InstrumentedModel(build_model(ModelSpec(model, len(CLASSES)), SIDE), spec, compute)
    taught = None if teacher is None else NetworkTeacher(InstrumentedModel(teacher, spec, compute), compute)
    data = load(index_dataset(root), spec)
    train, val = (DeviceSamples(side.samples, side.targets, compute.device) for side in (data.train, data.val))
    views = AugmentationPlan(
        ImageAugmenter(config.augmentation, spec.height, spec.width),
        len(train),
        compute.device,
        seed=config.seed,
        kept=config.cached_views,
    )
    parts = build_trainer_parts(
        student,
        taught,
        train,
        val,
        make_objective(config.loss, config.settings),
        views,
        ProcessGroup(),
        compute,
        classes=len(CLASSES),
        task="classify",
        batch_size=config.batch_size,
        recipe=config.recipe,
    )
    return Trainer(*parts, config)


def write_unexplainable(path: Path, side: int = SIDE) -> str:
    """Write a factory of a network without spatial layers, and return its name."""
    path.write_text(
        "from torch import nn\n"
        "def make_model(num_classes):\n"
        f"    return nn.Sequential(nn.Flatten(), nn.Linear({3 * side**2}, num_classes))\n"
    )
    return f"{path}:make_model"


def write_flattening(path: Path, side: int = SIDE) -> str:
    """Write a factory of a network with dense layers on all positions, as in VGG, and return its name."""
    path.write_text(
        "from torch import nn\n"
        "def make_model(num_classes):\n"
        "    first, second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)\n"
        "    features = nn.Sequential(first, nn.ReLU(True), second, nn.ReLU(True))\n"
        f"    dense = nn.Linear({8 * (side // 4) ** 2}, 16)\n"
        "    head = nn.Sequential(nn.Flatten(), dense, nn.ReLU(True), nn.Dropout(0.1))\n"
        "    model = nn.Sequential()\n"
        "    model.features, model.head, model.last = features, head, nn.Linear(16, num_classes)\n"
        f"    model.pretrained_cfg = {{'input_size': (3, {side}, {side})}}\n"
        "    return model\n"
    )
    return f"{path}:make_model"


def write_foreign_file(path: Path, side: int, classes: int = len(CLASSES)) -> Path:
    """Write an `.onnx` classifier of another framework that uses the mean color: float `[N, 3, side, side]`, no map."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, classes)).astype(np.float32), rng.normal(size=classes).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["y"]),
    ]
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", ["n", 3, side, side]), ("y", ["n", classes]))
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in (("weight", weight), ("bias", bias))]
    graph = helper.make_graph(nodes, "foreign", *sides, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
